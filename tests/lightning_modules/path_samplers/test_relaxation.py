"""Relaxations against brute force: every architecture of a small space, and its probability."""

import itertools
import math

import pytest
import torch

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.darts import DARTSSampler
from lightning_modules.path_samplers.gumbel import GumbelSampler
from lightning_modules.path_samplers.relaxation import IndependentRelaxation
from lightning_modules.path_samplers.setn import SETNSampler
from lightning_modules.path_samplers.trellis import TrellisRelaxation, likeliest_paths
from search.spaces.base import Decision, SearchSpace

DOWN, SAME, UP = 0, 1, 2
LEVELS = 3
MOVES = [
    [{DOWN: level + 1, SAME: level, UP: level - 1}[move] for move in (DOWN, SAME, UP)] for level in range(LEVELS - 1)
] + [[-1, LEVELS - 1, LEVELS - 2]]


class Levels(SearchSpace):
    """Four moves between three resolutions, with a cell's operation in between."""

    name = "levels"
    decisions = (
        *(Decision(f"move {k}", ("down", "same", "up")) for k in range(2)),
        Decision("operation", ("convolution", "pooling")),
        *(Decision(f"move {k}", ("down", "same", "up")) for k in range(2, 4)),
    )

    def build(self, architecture, **head):
        raise NotImplementedError

    def valid_choices(self, prefix):
        valid = super().valid_choices(prefix)
        if prefix.shape[-1] == 2:
            return valid
        moves = torch.cat([prefix[..., :2], prefix[..., 3:]], dim=-1)
        level = (moves == DOWN).sum(-1, keepdim=True) - (moves == UP).sum(-1, keepdim=True)
        move = torch.arange(3)
        return valid & ~((move == DOWN) & (level == LEVELS - 1)) & ~((move == UP) & (level == 0))

    def relaxation(self):
        return TrellisRelaxation(self, [MOVES, MOVES, None, MOVES, MOVES])


def logits_of(relaxation, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in relaxation.shapes()]


def probabilities(space, logits):
    """Of every architecture, multiplied along its moves in double precision."""
    found = {}
    for arch in space.enumerate():
        level, total = 0, 0.0
        for choice, each in zip(arch, logits, strict=True):
            if each.ndim == 1:
                total += float(each.double().log_softmax(0)[choice])
                continue
            row = each[level].double()
            there = [move for move in (DOWN, SAME, UP) if 0 <= (after := MOVES[level][move]) < LEVELS and after >= 0]
            total += float(row[choice] - row[there].logsumexp(0))
            level = MOVES[level][choice]
        found[arch] = total
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_trellis_is_decoded_as_brute_force_does(seed):
    space = Levels()
    relaxation = space.relaxation()
    logits = logits_of(relaxation, seed)
    worth = probabilities(space, logits)
    assert sum(map(math.exp, worth.values())) == pytest.approx(1)
    expected = sorted(worth, key=worth.get, reverse=True)
    assert relaxation.decode(logits, 1) == expected[:1]
    assert relaxation.decode(logits, 20) == expected[:20]  # more than are looked for at once
    assert relaxation.decode(logits, 10_000) == expected
    paths = likeliest_paths(
        [each.double().log_softmax(-1).tolist() for each in relaxation._masked(logits)],
        [None if each is None else each.tolist() for each in relaxation.transitions],
        0,
        5,
    )
    assert [total for total, _ in paths] == pytest.approx([worth[arch] for arch in expected[:5]])


@pytest.mark.parametrize("seed", range(3))
def test_independent_decisions_are_decoded_as_brute_force_does(seed):
    space = Levels()
    relaxation = IndependentRelaxation(space)
    logits = logits_of(relaxation, seed)
    log_probs = [each.double().log_softmax(0).tolist() for each in logits]
    worth = {
        arch: sum(row[choice] for row, choice in zip(log_probs, arch, strict=True))
        for arch in itertools.product(*map(range, space.sizes))
        if bool(space.is_valid(torch.tensor(arch)))
    }
    assert relaxation.decode(logits, 1000) == sorted(worth, key=worth.get, reverse=True)


@pytest.mark.parametrize("kind", [IndependentRelaxation, lambda space: space.relaxation()], ids=["softmax", "trellis"])
def test_draws_follow_the_probabilities_of_the_path(kind):
    space = Levels()
    relaxation = kind(space)
    logits = logits_of(relaxation)
    draws = relaxation.sample(logits, 20_000, torch.Generator().manual_seed(0))
    assert draws.shape == (20_000, 5)
    share = (draws[:, 0] == DOWN).double().mean()
    weights = relaxation.path(logits).weights
    first = weights[0] if weights[0].ndim == 1 else weights[0][0]
    assert float(share) == pytest.approx(float(first[DOWN]), abs=0.02)
    if len(weights[0].shape) == 2:
        assert bool(space.is_valid(draws).all())
        worth = probabilities(space, logits)
        best = max(worth, key=worth.get)
        assert float((draws == torch.tensor(best)).all(1).double().mean()) == pytest.approx(
            math.exp(worth[best]), abs=0.02
        )


def test_weights_of_a_trellis_depend_on_the_state():
    relaxation = Levels().relaxation()
    path = relaxation.path(logits_of(relaxation))
    assert path.choices is None
    assert [tuple(each.shape) for each in path.weights] == [(3, 3), (3, 3), (2,), (3, 3), (3, 3)]
    for each in path.weights:
        torch.testing.assert_close(each.sum(-1), torch.ones(each.shape[:-1]))
    assert path.weights[0][0, UP] == 0 and path.weights[0][2, DOWN] == 0 and path.weights[0][1].min() > 0


def test_a_hard_path_walks_the_trellis_and_lets_gradients_through():
    relaxation = Levels().relaxation()
    logits = [each.requires_grad_() for each in logits_of(relaxation)]
    path = relaxation.path(logits, temperature=2.0, hard=True)
    level = 0
    for t, choice in enumerate(path.choices):
        row = path.weights[t] if t == 2 else path.weights[t][level]
        assert row.argmax() == choice and float(row.max()) == 1 and int((row != 0).sum()) == 1
        level = level if t == 2 else MOVES[level][choice]
    path.weights[0][0, SAME].backward()
    soft = (relaxation._masked(logits)[0][0] / 2).softmax(0)
    (expected,) = torch.autograd.grad(soft[SAME], logits[0])
    torch.testing.assert_close(logits[0].grad, expected)
    assert not logits[0].grad.isnan().any()


@pytest.mark.parametrize("make", [DARTSSampler, SETNSampler, lambda space: GumbelSampler(space, learning_rate=0.1)])
def test_samplers_with_logits_learn_in_a_trellis(make):
    """The loss favours one architecture's weights; it becomes the likeliest."""
    space, wanted = Levels(), (DOWN, DOWN, 1, UP, SAME)
    sampler = make(space)
    for group in sampler._optimizer.param_groups:
        group["lr"] = 0.1
    supernet = torch.nn.Module()

    def loss(path: Path):
        level, total = 0, 0.0
        for weights, choice in zip(path.weights, wanted, strict=True):
            total = total - (weights[choice] if weights.ndim == 1 else weights[level][choice])
            level = level if weights.ndim == 1 else MOVES[level][choice]
        return total

    for step in range(60):
        assert bool(space.is_valid(torch.tensor(sampler.path(0, step).choices or wanted)))
        sampler.learn(ArchitectureStep(supernet, loss, loss, lambda parameters: None, 0, step, step / 60, 0.1))
    assert sampler.likeliest(1) == [wanted]


def test_transitions_that_are_not_the_spaces_are_refused():
    space = Levels()
    with pytest.raises(ValueError, match="transitions of 1 decisions, the space has 5"):
        TrellisRelaxation(space, [MOVES])
    with pytest.raises(ValueError, match="transitions of decision 0 must be 3 rows, one a state, of 3 states"):
        TrellisRelaxation(space, [[[3, 0, 0]] * 3, MOVES, None, MOVES, MOVES])
    stuck = [[-1, 2, -1], [0, 1, 2], [-1, -1, -1]]
    with pytest.raises(ValueError, match="transitions of decision 1 have no choice in state 2"):
        TrellisRelaxation(space, [stuck, stuck, None, MOVES, MOVES])
    with pytest.raises(ValueError, match="soft_one_shot is for spaces in which every decision has a softmax"):
        DARTSSampler(space, soft_one_shot=0.1)
