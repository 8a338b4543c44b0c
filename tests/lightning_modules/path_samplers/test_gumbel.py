"""Differentiable sampling: the draws, their weights and the gradient, without a look at how noise is made."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import nn

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.gumbel import GumbelSampler
from search.spaces.head import Head
from tests.lightning_modules.path_samplers.test_darts import FUNCTIONS, SECRET, SPACE, Sum, batch, step_of
from tests.search.spaces.masked_space import MaskedSpace


def with_logits(sampler, seed=0, scale=1.0):
    with torch.no_grad():
        for t, logits in enumerate(sampler.logits):
            logits.copy_(scale * torch.randn(len(logits), generator=torch.Generator().manual_seed(100 * seed + t)))
    return sampler


def seen_path(sampler, step):
    """The path that `learn` asks the loss of, and the derivative of its weights.

    The derivative is one float64 ``[choices, choices]`` a decision: of each weight with respect to each logit.
    """
    found = []

    def loss(path):
        slopes = [
            torch.stack([torch.autograd.grad(weight, logits, retain_graph=True)[0] for weight in weights]).double()
            for weights, logits in zip(path.weights, sampler.logits, strict=True)
        ]
        found.append((path, slopes))
        return torch.cat(path.weights).sum()

    sampler.learn(replace(step, held_out_loss=loss))
    (both,) = found
    return both


def softmax_behind(slopes, temperature):
    """The softmax ``s`` of which ``slopes`` is the derivative, ``(diag(s) - s s') / temperature``.

    Of three different choices, ``s_i^2 = temperature * J_ij J_ik / -J_jk``.
    """
    size = len(slopes)
    values = []
    for i in range(size):
        j, k = [other for other in range(size) if other != i][:2]
        values.append(math.sqrt(temperature * float(slopes[i, j] * slopes[i, k] / -slopes[j, k])))
    return values


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_paths_are_drawn_by_the_softmax_of_the_logits():
    sampler = with_logits(GumbelSampler(SPACE))
    paths = [sampler.path(2, step) for step in range(4000)]
    assert all(path.weights is None for path in paths)
    for t, logits in enumerate(sampler.logits):
        counts = Counter(path.choices[t] for path in paths)
        expected = 4000 * logits.detach().double().softmax(0)
        assert stats.chisquare([counts[k] for k in range(5)], expected.numpy()).pvalue > 1e-3


def test_masked_spaces_give_valid_paths_by_the_softmax_of_what_is_allowed():
    space = MaskedSpace()
    sampler = with_logits(GumbelSampler(space), scale=0.5)
    paths = [sampler.path(0, step).choices for step in range(3000)]
    assert bool(space.is_valid(torch.tensor(paths)).all())
    probability = {
        arch: math.prod(float(logits.softmax(0)[c].detach()) for logits, c in zip(sampler.logits, arch, strict=True))
        for arch in space.enumerate()
    }
    total, counts = sum(probability.values()), Counter(path[0] for path in paths)
    expected = [3000 * sum(p for arch, p in probability.items() if arch[0] == width) / total for width in range(3)]
    assert stats.chisquare([counts[width] for width in range(3)], expected).pvalue > 1e-3


def test_a_space_of_which_nothing_valid_is_likely_says_so():
    sampler = GumbelSampler(MaskedSpace())
    with torch.no_grad():
        for logits, choice in zip(sampler.logits, (2, 3, 4, 2, 0), strict=True):
            logits[choice] = 100.0
    with pytest.raises(RuntimeError, match="no valid architecture in 100 draws"):
        sampler.path(0, 0)


def test_the_logits_learn_from_other_paths_than_the_weights():
    sampler = GumbelSampler(SPACE)
    steps = [replace(step_of(Sum(), 0), step=step) for step in range(20)]
    theirs = [GumbelSampler(SPACE).path(0, step).choices for step in range(20)]
    assert sum(seen_path(sampler, step)[0].choices != own for step, own in zip(steps, theirs, strict=True)) > 18


# ---- weights and gradient --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.999])
def test_weights_are_exactly_one_and_zero(progress):
    sampler = with_logits(GumbelSampler(SPACE), 3)
    for step in range(60):
        path, _ = seen_path(sampler, replace(step_of(Sum(), 0), step=step, progress=progress))
        for weights, choice in zip(path.weights, path.choices, strict=True):
            assert weights.tolist() == [float(k == choice) for k in range(5)]  # exactly
            assert weights.requires_grad


def test_the_derivative_of_the_weights_is_that_of_a_softmax_whose_temperature_falls_linearly():
    """The derivative tells the softmax, and three of them at known temperatures must come of the same noise."""
    ratios = []
    for progress in (0.0, 0.25, 0.5, 0.9):
        sampler = with_logits(GumbelSampler(SPACE, temperature=6.0, final_temperature=2.0), 1)
        temperature = 6.0 - 4.0 * progress
        path, all_slopes = seen_path(sampler, replace(step_of(Sum(), 0), step=11, progress=progress))
        noisy = []
        for slopes, choice in zip(all_slopes, path.choices, strict=True):
            soft = softmax_behind(slopes, temperature)
            assert sum(soft) == pytest.approx(1, abs=1e-4)  # no other temperature gives that
            assert max(range(5), key=soft.__getitem__) == choice
            vector = torch.tensor(soft, dtype=torch.float64)
            expected = vector.diag() - vector.outer(vector)
            torch.testing.assert_close(slopes, expected / temperature, rtol=1e-3, atol=1e-5)
            noisy += [temperature * math.log(one / soft[0]) for one in soft]
        ratios.append(noisy)
    for other in ratios[1:]:
        assert other == pytest.approx(ratios[0], abs=5e-3)


def test_the_logits_gradient_is_the_chain_of_loss_and_softmax():
    network, seen = Sum(), []
    sampler = with_logits(GumbelSampler(SPACE, temperature=3.0, final_temperature=1.0), 2)
    step = replace(step_of(network, 0), step=4, progress=0.5)
    path, slopes = seen_path(with_logits(GumbelSampler(SPACE, temperature=3.0, final_temperature=1.0), 2), step)
    sampler.learn(replace(step, average=lambda parameters: seen.extend(each.grad.clone() for each in parameters)))
    x, y = (each.double() for each in batch(1))
    terms = [0.5 * FUNCTIONS[choice](x[:, t]) for t, choice in enumerate(path.choices)]
    for t, (gradient, choice) in enumerate(zip(seen, path.choices, strict=True)):
        # d mean((sum - y)^2) / d weight, of the chosen operation alone: nothing else ran.
        upstream = float((2 * (sum(terms) - y) * terms[t]).mean())
        torch.testing.assert_close(gradient.double(), upstream * slopes[t][choice], rtol=1e-3, atol=1e-5)
        assert gradient.abs().max() > 1e-4


def test_learning_leaves_the_weights_and_their_gradients_alone():
    network = Sum()
    network.scale.grad = torch.full_like(network.scale, 7.0)
    before = network.scale.detach().clone()
    sampler = GumbelSampler(SPACE)
    start = torch.cat(list(sampler.logits)).detach().clone()
    sampler.learn(step_of(network, 0))
    assert torch.equal(network.scale, before) and network.scale.requires_grad
    assert torch.equal(network.scale.grad, torch.full_like(before, 7.0))
    assert not torch.equal(torch.cat(list(sampler.logits)), start)


def test_weights_need_gradients_again_after_an_error():
    network = Sum()

    def out_of_memory(path):
        assert not network.scale.requires_grad
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        GumbelSampler(SPACE).learn(replace(step_of(network, 0), held_out_loss=out_of_memory))
    assert network.scale.requires_grad


def test_a_real_supernet_and_a_path_that_carries_nothing():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SPACE.build_supernet(lambda width: BatchStatistics(width), Head(3), 4, 1)
        images, labels = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss(path):
        return nn.functional.cross_entropy(network(images, path), labels)

    def learn(sampler):
        averaged = []
        step = ArchitectureStep(network, loss, loss, lambda p: averaged.append([e.grad for e in p]), 0, 0, 0.0, 0.1)
        sampler.learn(step)
        return averaged[0]

    sampler = GumbelSampler(SPACE)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in learn(sampler))
    with torch.no_grad():
        for logits in sampler.logits:
            logits.copy_(torch.tensor([100.0, 0, 0, 0, 0]))
    before = torch.cat(list(sampler.logits)).detach().clone()
    assert learn(sampler) == [None] * 6
    assert torch.equal(torch.cat(list(sampler.logits)), before)


class Columns(nn.Module):
    """Choice ``c`` of decision ``t`` gives its own column of the input, times a shared weight."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((6, 5), 0.5))

    def forward(self, x, path):
        weights = [1.0] * 6 if path.weights is None else [w[c] for w, c in zip(path.weights, path.choices, strict=True)]
        chosen = enumerate(zip(path.choices, weights, strict=True))
        return sum(weight * self.scale[t, choice] * x[:, t, choice] for t, (choice, weight) in chosen)


def test_finds_the_choices_that_made_the_data():
    network, sampler = Columns(), GumbelSampler(SPACE, learning_rate=0.05, weight_decay=0.0)

    def loss(seed):
        x = torch.randn(64, 6, 5, generator=torch.Generator().manual_seed(seed))
        y = sum(x[:, t, choice] for t, choice in enumerate(SECRET))
        return lambda path: nn.functional.mse_loss(network(x, path), y)

    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    for step in range(300):
        optimizer.zero_grad()
        loss(2 * step)(sampler.path(0, step)).backward()
        optimizer.step()
        sampler.learn(
            ArchitectureStep(network, loss(2 * step), loss(2 * step + 1), lambda p: None, 0, step, step / 300, 0.02)
        )
    assert [int(logits.argmax()) for logits in sampler.logits] == list(SECRET)
    # The last paths are the secret's more often than not, and the shared weights put it first.
    assert sum(sampler.path(1, step).choices == SECRET for step in range(100)) > 50
    with torch.no_grad():
        assert sampler.choose(lambda archs: [-float(loss(999)(Path(arch))) for arch in archs], 3, 0)[0] == SECRET


# ---- choosing, settings ----------------------------------------------------------------------------------------------


def test_chooses_among_the_most_frequent_draws():
    sampler = with_logits(GumbelSampler(SPACE, ranked=6, candidates=3000), 4)
    asked = []

    def evaluate(archs):
        asked.extend(archs)
        return [-float(k) for k in range(len(archs))]

    chosen = sampler.choose(evaluate, 2, 0)
    assert chosen == asked[:2] and len(asked) == 6
    probability = {
        arch: math.prod(float(logits.softmax(0)[c].detach()) for logits, c in zip(sampler.logits, arch, strict=True))
        for arch in SPACE.enumerate()
    }
    likeliest = sorted(probability, key=probability.get, reverse=True)
    assert asked[0] in likeliest[:3] and set(asked) <= set(likeliest[:30])


def test_starts_alike_whatever_the_global_random_state():
    starts = []
    for seed in range(2):
        torch.manual_seed(seed)
        starts.append(torch.cat(list(GumbelSampler(SPACE).logits)))
    assert torch.equal(*starts) and starts[0].abs().max() < 1e-2


def test_stays_on_the_cpu_and_in_single_precision():
    sampler = GumbelSampler(SPACE).to(torch.float64).to("meta")
    assert {(each.device.type, each.dtype) for each in sampler.logits} == {("cpu", torch.float32)}
    assert sampler.path(0, 0) == GumbelSampler(SPACE).path(0, 0) == Path(sampler.path(0, 0).choices)


@pytest.mark.parametrize("settings", [(1.0, 2.0), (1.0, 0.0), (-1.0, -2.0)])
def test_refuses_a_temperature_that_does_not_fall(settings):
    with pytest.raises(ValueError, match=f"temperature falls from {settings[0]} to {settings[1]}"):
        GumbelSampler(SPACE, temperature=settings[0], final_temperature=settings[1])


@pytest.mark.parametrize("settings", [{"candidates": 0}, {"ranked": 0}])
def test_refuses_no_candidates(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        GumbelSampler(SPACE, **settings)
