"""Auto-DeepLab's relaxation against brute force, and a search with it whose answer is known."""

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from lightning_modules.networks.auto_deeplab_cells import Block
from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.path_samplers.base import ArchitectureStep, PathSampler
from lightning_modules.path_samplers.darts import DARTSSampler
from lightning_modules.path_samplers.gumbel import GumbelSampler
from search.contracts.contract import toy_factory
from search.contracts.path_sampler import made_up_scores
from search.errors import CatchmarkError
from search.recipes.catalogue import find_classes
from search.spaces.auto_deeplab import AutoDeepLab
from search.spaces.base import SearchSpace
from search.spaces.head import Head

SPACE = AutoDeepLab(layers=3, blocks=1)
SAMPLERS = find_classes("lightning_modules.path_samplers", PathSampler)


def logits_of(space, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in space.relaxation().shapes()]


def worth(space, logits, arch):
    """The logarithm of an architecture's probability, added up in double precision."""
    total, level = 0.0, 0
    for t, move in enumerate(arch[: space.layers]):
        there = [k for k, step in enumerate((1, 0, -1)) if 0 <= level + step <= 3]
        row = logits[t][level].double()
        total += float(row[move] - row[there].logsumexp(0))
        level += 1 - move
    for t, block in enumerate(space.cell(arch), start=space.layers):
        for source, operation in zip(block.sources, block.operations, strict=True):
            total += float(logits[t].double().log_softmax(-1)[source, operation])
    return total


@pytest.mark.parametrize("seed", range(2))
def test_architectures_come_in_the_order_that_brute_force_gives(seed):
    logits = logits_of(SPACE, seed)
    found = {
        arch: worth(SPACE, logits, arch)
        for arch in SPACE.enumerate()
        if arch[3] < arch[4] and 0 not in arch[5:]  # two different edges in order, and no operation `zero`
    }
    expected = sorted(found, key=found.get, reverse=True)
    assert len(expected) == 13 * 49
    assert SPACE.relaxation().decode(logits, 1) == expected[:1]
    assert list(SPACE.relaxation().by_likelihood(logits)) == expected


@pytest.mark.parametrize("seed", range(3))
def test_a_whole_network_is_decoded_by_viterbi_and_the_two_strongest_edges(seed):
    space = AutoDeepLab()
    logits = logits_of(space, seed)
    (arch,) = space.relaxation().decode(logits, 1)
    assert space.check(arch) == arch
    table = torch.tensor(list(walks(12)))  # all 75,025 paths
    levels = torch.cat([torch.zeros(len(table), 1, dtype=torch.long), (1 - table).cumsum(1)], dim=1)
    scores = torch.zeros(len(table), dtype=torch.double)
    for t in range(12):
        present = torch.tensor([[0 <= level + step <= 3 for step in (1, 0, -1)] for level in range(4)])
        log_probs = logits[t].double().masked_fill(~present, -torch.inf).log_softmax(-1)
        scores += log_probs[levels[:, t], table[:, t]]
    assert arch[:12] == tuple(table[scores.argmax()].tolist())
    for each, block in zip(logits[12:], space.cell(arch), strict=True):
        strength = each.softmax(-1)[:, 1:].max(-1)
        edges = sorted(sorted(range(len(each)), key=lambda edge: -float(strength.values[edge]))[:2])
        assert block == Block(tuple(edges), tuple(int(strength.indices[edge]) + 1 for edge in edges))


def walks(layers, level=0):
    if layers == 0:
        yield ()
        return
    for move, step in enumerate((1, 0, -1)):
        if 0 <= level + step <= 3:
            yield from ((move, *rest) for rest in walks(layers - 1, level + step))


def test_weights_add_up_where_they_leave_a_place_and_on_every_edge():
    relaxation = SPACE.relaxation()
    weights = relaxation.path(logits_of(SPACE)).weights
    assert [each.shape for each in weights] == relaxation.shapes() == [(4, 3)] * 3 + [(2, 8)]
    for each in weights:
        torch.testing.assert_close(each.sum(-1), torch.ones(len(each)))
    assert not weights[0][0, 2] and not weights[0][3, 0] and weights[0][1].min() > 0


@pytest.mark.parametrize("seed", range(4))
def test_a_hard_path_is_the_likeliest_one_and_valid_under_noise(seed):
    space = AutoDeepLab(layers=5, blocks=3)
    relaxation, logits = space.relaxation(), [each.requires_grad_() for each in logits_of(space, seed, 3.0)]
    generator = torch.Generator().manual_seed(seed)
    noise = [-(-torch.rand(each.shape, generator=generator).log()).log() for each in logits]
    path = relaxation.path(logits, noise, temperature=0.5, hard=True)
    assert space.check(path.choices) == path.choices
    soft = relaxation.path(logits, noise, temperature=0.5).weights
    level = 0
    for t, (hard, each, after) in enumerate(zip(path.weights[:5], soft[:5], space.levels(path.choices), strict=True)):
        assert hard[level].tolist() == torch.eye(3)[path.choices[t]].tolist()
        others = [row for row in range(4) if row != level]
        assert torch.equal(hard[others], each[others])
        level = after
    slopes = torch.autograd.grad(sum((each**2).sum() for each in path.weights), logits)
    assert all(slope.abs().sum() > 0 for slope in slopes)
    cell = relaxation.path(logits, hard=True).choices[5:]
    assert cell == relaxation.decode(logits, 1)[0][5:]


def test_draws_follow_the_moves_probabilities_and_are_what_noise_makes_likeliest():
    relaxation, logits = SPACE.relaxation(), logits_of(SPACE, 2)
    draws = relaxation.sample(logits, 20_000, torch.Generator().manual_seed(0))
    assert bool(SPACE.is_valid(draws).all()) and bool((draws[:, 5:] != 0).all())
    walked = Counter(tuple(draw) for draw in draws[:, :3].tolist())
    assert set(walked) == set(walks(3))
    for walk, count in walked.items():
        expected = torch.tensor(worth(AutoDeepLab(3, 1), logits, (*walk, 0, 0, 0, 0))).exp()
        zero = logits[3].double().log_softmax(-1)[0, 0].exp() ** 2
        assert count / 20_000 == pytest.approx(float(expected / zero), abs=0.02)
    # Of an edge's operations the likeliest under Gumbel noise is a draw from their softmax, less `zero`.
    shares = logits[3][0, 1:].softmax(0)
    for operation, share in enumerate(shares.tolist(), start=1):
        assert float((draws[:, 5] == operation).double().mean()) == pytest.approx(share, abs=0.02)


REFUSE = {"CASSampler", "FBNetSampler", "PricedGumbelSampler"}
"""Those that are for softmaxes of decisions, and say so."""


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_takes_the_space_or_says_why_not(name):
    space = AutoDeepLab(2, 1)
    make = toy_factory(SAMPLERS[name], Callable[[SearchSpace], PathSampler])
    if name in REFUSE:
        with pytest.raises(CatchmarkError, match="every decision has a softmax of its own"):
            make(space)
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = space.build_supernet(BatchStatistics, Head(3), filters=2, stem_channels=2, head_channels=4)
        images, sampler = torch.randn(2, 3, 32, 32), make(space)

    def loss(path):
        return supernet(images, path).square().mean()

    assert loss(sampler.path(0, 1)).isfinite()
    sampler.learn(ArchitectureStep(supernet, loss, loss, lambda parameters: None, 0, 3, 0.1, 0.1))
    chosen = sampler.choose(made_up_scores, 2, 0)
    assert len(chosen) == 2 and all(space.check(arch) == arch for arch in chosen)


@pytest.mark.parametrize("make", [partial(DARTSSampler, weight_decay=0.0), GumbelSampler])
def test_a_search_finds_the_architecture_that_was_planted(make):
    """What a place on the trellis is worth, and each operation on each edge; the greedy first move is a wrong one."""
    space = AutoDeepLab(layers=4, blocks=2)
    places = torch.zeros(4, 4)
    places[0, 0], places[1:, 2] = 0.1, 1.0  # staying is worth more at first, and less than what lies below
    edges = [torch.zeros(2, 8), torch.zeros(3, 8)]
    edges[0][0, 5], edges[0][1, 2], edges[1][0, 3], edges[1][2, 7] = 1.0, 1.0, 1.0, 1.0
    for each in edges:
        each[:, 0] = 0.9  # a choice `zero` that is nearly as good must not be found
    planted = space.from_levels([1, 2, 2, 2], [Block((0, 1), (5, 2)), Block((0, 2), (3, 7))])

    def loss(path):
        """Less what is expected of a walk, and of the operations."""
        there, total = torch.tensor([1.0, 0, 0, 0]), torch.zeros(())
        for t in range(4):
            moved = [torch.zeros(()) for _ in range(4)]
            for level in range(4):
                for move, step in enumerate((1, 0, -1)):
                    if 0 <= level + step <= 3:
                        moved[level + step] = moved[level + step] + there[level] * path.weights[t][level, move]
            there = torch.stack(moved)
            total = total + (there * places[t]).sum()
        return -total - sum((each * own).sum() for each, own in zip(path.weights[4:], edges, strict=True))

    sampler = make(space, learning_rate=0.1)
    assert sampler.likeliest(1) != [planted]
    for step in range(60):
        sampler.learn(ArchitectureStep(nn.Module(), loss, loss, lambda parameters: None, 0, step, step / 60, 0.1))
    assert sampler.likeliest(1) == [planted]
