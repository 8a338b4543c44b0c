"""FBNet's sampler: its weights, its loss and its gradient, each computed anew, and what it finds."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from lightning_modules.path_samplers.additive_cost import PriceByName, expected_cost
from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.fbnet import FBNetSampler
from search.spaces.fbnet import FBNet
from search.spaces.nasbench201 import NASBench201
from tests.search.spaces.masked_space import MaskedSpace

SPACE = FBNet([1, 2])
PRICES = {"k3_e1": 1.0, "k3_e3": 2.0, "k3_e6": 4.0, "k5_e1": 1.5, "k5_e3": 3.0, "k5_e6": 6.0}
PRICED = partial(PriceByName, prices=PRICES, constant=2.0)


def sampler_of(space=SPACE, latency=PRICED, seed=None, **settings):
    sampler = FBNetSampler(space, latency, **{"warmup": 0, "weight_decay": 0.0} | settings)
    if seed is not None:
        with torch.no_grad():
            for t, logits in enumerate(sampler.logits):
                logits.copy_(torch.randn(len(logits), generator=torch.Generator().manual_seed(100 * seed + t)))
    return sampler


def step_of(loss, number=0, network=None):
    network = nn.Linear(1, 1) if network is None else network
    return ArchitectureStep(network, loss, loss, lambda parameters: None, 0, number, 0.0, 0.1)


# ---- what it weighs -------------------------------------------------------------------------------------------------


def test_the_expected_latency_is_the_mean_over_all_architectures():
    sampler = sampler_of(seed=1)
    weights = [logits.detach().double().softmax(0) for logits in sampler.logits]
    names = SPACE.decisions[0].choices
    expected = sum(
        math.prod(float(own[choice]) for own, choice in zip(weights, arch, strict=True))
        * (2.0 + sum(PRICES.get(names[choice], 0.0) for choice in arch))
        for arch in itertools.product(range(9), repeat=3)
    )
    assert float(sampler.expected_latency(weights)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("unit", "beta"), [(0.001, 0.6), (1.0, 2.0), (0.001, 0.0)])
def test_loss_and_gradient_are_those_of_the_formula_written_out(unit, beta):
    """CE x alpha x log(LAT)^beta of a Gumbel softmax, in double precision, from the noise that its weights tell."""
    sampler = sampler_of(seed=2, unit=unit, beta=beta, alpha=0.3, temperature=2.0)
    quality, seen, gradients = torch.rand(3, 9, generator=torch.Generator().manual_seed(3)), [], []

    def loss(path):
        seen.append([each.detach().double() for each in path.weights])
        return (torch.stack(path.weights) * quality).sum().exp()

    step = replace(step_of(loss), average=lambda logits: gradients.extend(each.grad.clone() for each in logits))
    before = [each.detach().double() for each in sampler.logits]
    sampler.learn(step)
    (weights,) = seen
    # softmax((theta + g) / 2): up to a constant, which a softmax does not see, g is 2 log(weight) - theta.
    logits = [each.clone().requires_grad_() for each in before]
    noise = [2 * own.log() - theta for own, theta in zip(weights, before, strict=True)]
    parts = [((theta + g) / 2).exp() for theta, g in zip(logits, noise, strict=True)]
    mixed = [part / part.sum() for part in parts]
    names = SPACE.decisions[0].choices
    latency = 2.0 + sum(PRICES.get(name, 0.0) * own[k] for own in mixed for k, name in enumerate(names))
    formula = (torch.stack(mixed) * quality).sum().exp() * 0.3 * torch.log(latency / unit) ** beta
    for ours, expected in zip(gradients, torch.autograd.grad(formula, logits), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-6)
    again = sampler.architecture_loss((torch.stack(weights) * quality).sum().exp(), weights).detach()
    assert float(again) == pytest.approx(float(formula.detach()), rel=1e-5)


def test_weights_are_gumbel_softmaxes_of_the_logits():
    """The largest weight is the Gumbel maximum, so choices are as frequent as the softmax says (Maddison et al.)."""
    sampler = sampler_of(seed=4)
    draws = torch.stack([torch.stack(sampler.path(0, step).weights).argmax(1) for step in range(3000)])
    for t, logits in enumerate(sampler.logits):
        expected = logits.detach().softmax(0)
        seen = draws[:, t].bincount(minlength=9) / len(draws)
        assert (seen - expected).abs().max() < 0.04


def test_the_temperature_falls_with_each_epoch():
    sampler = sampler_of(seed=5, temperature=4.0, temperature_decay=0.5)
    logs = []
    for epoch in range(3):
        assert sampler.temperature == 4.0 * 0.5**epoch
        weights = sampler.path(0, 7).weights[0].double().log()
        logs.append(weights - weights[0])
        sampler.epoch_ended(lambda archs: [], 0, epoch, 3)
    for epoch in (1, 2):  # the same noise, at half the temperature
        torch.testing.assert_close(logs[epoch], 2**epoch * logs[0], rtol=1e-4, atol=1e-4)


def test_all_operations_start_alike_and_only_what_weighs_something_runs():
    sampler = sampler_of()
    assert all(torch.equal(logits, torch.zeros(9)) for logits in sampler.logits)
    assert sampler.path(0, 0).active == (tuple(range(9)),) * 3
    cold = sampler_of(temperature=0.05, smallest_weight=1e-3)
    paths = [cold.path(0, step) for step in range(20)]
    for path in paths:
        for weights, active in zip(path.weights, path.active, strict=True):
            assert active == tuple(k for k in range(9) if weights[k] >= 1e-3)
    assert sum(len(active) for path in paths for active in path.active) < 0.3 * 20 * 3 * 9


def test_a_latency_of_nothing_is_no_reason_to_stop():
    sampler = sampler_of(latency=partial(PriceByName, prices={}, constant=0.0))
    sampler.learn(step_of(lambda path: sum(weights[3] for weights in path.weights)))
    assert all(logits.isfinite().all() and logits[3] < logits[4] for logits in sampler.logits)


# ---- what it finds --------------------------------------------------------------------------------------------------

SECRET = (3, 8, 5)


class Columns(nn.Module):
    """Operation ``c`` of layer ``t`` gives its own column of the input, times a shared weight."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3, 9), 0.5))

    def forward(self, x, path):
        return (torch.stack(path.weights) * self.scale * x).sum((1, 2))


def search(**settings):
    """The likeliest architecture after 300 steps on data that the secret operations made."""
    network = Columns()
    sampler = sampler_of(learning_rate=0.05, temperature_decay=0.8, **settings)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    for number in range(300):
        x = torch.randn(64, 3, 9, generator=torch.Generator().manual_seed(number))
        y = sum(x[:, t, choice] for t, choice in enumerate(SECRET))

        def loss(path, x=x, y=y):
            return nn.functional.mse_loss(network(x, path), y)

        optimizer.zero_grad()
        loss(sampler.path(0, number)).backward()
        optimizer.step()
        sampler.learn(step_of(loss, number, network))
        if number % 30 == 29:
            sampler.epoch_ended(lambda archs: [], 0, number // 30, 10)
    return tuple(int(logits.argmax()) for logits in sampler.logits), sampler


def test_finds_the_operations_that_made_the_data():
    found, sampler = search()
    assert found == SECRET
    assert sampler.choose(lambda archs: [], 1, 0) == [SECRET]


def test_does_not_find_an_operation_that_latency_rules_out():
    costly = partial(PriceByName, prices={"k3_e6": 1000.0}, constant=2.0)
    found, sampler = search(latency=costly, beta=4.0)
    assert found[0] != SECRET[0] and found[1:] == SECRET[1:]
    assert sampler.logits[0].softmax(0)[SECRET[0]] < 0.02


# ---- choosing, settings ---------------------------------------------------------------------------------------------


def test_draws_by_the_softmax_and_fills_up_with_the_likeliest():
    sampler = sampler_of(seed=6)
    probability = {
        arch: math.prod(float(logits.softmax(0)[c].detach()) for logits, c in zip(sampler.logits, arch, strict=True))
        for arch in itertools.product(range(9), repeat=3)
    }
    chosen = sampler.choose(lambda archs: [], 6, 0)
    assert len(set(chosen)) == 6 and chosen != sampler.choose(lambda archs: [], 6, 1)
    assert [probability[arch] for arch in chosen] == sorted((probability[arch] for arch in chosen), reverse=True)
    drawn = [arch for seed in range(300) for arch in sampler.choose(lambda archs: [], 1, seed)]
    likeliest = max(probability, key=probability.get)
    assert drawn.count(likeliest) / 300 == pytest.approx(probability[likeliest], abs=0.06)
    with torch.no_grad():
        for logits in sampler.logits:
            logits.mul_(100)
    ranked = sorted(probability, key=probability.get, reverse=True)
    assert sampler.choose(lambda archs: [], 3, 0)[0] == ranked[0]
    assert len(set(sampler.choose(lambda archs: [], 5, 0))) == 5


def test_prices_by_name():
    cost = PriceByName(NASBench201(), {"nor_conv_3x3": 2.0}, 1.0)
    assert cost.constant() == 1.0 and [each.tolist() for each in cost.prices()] == [[0, 0, 0, 2.0, 0]] * 6
    assert float(expected_cost(cost.constant(), cost.prices(), [torch.full((5,), 0.2)] * 6)) == pytest.approx(3.4)
    with pytest.raises(ValueError, match="prices: no choice is called 'conv'"):
        PriceByName(MaskedSpace(), {"conv": 1.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit": 0.0}, "unit is 0.0"),
        ({"temperature_decay": 1.5}, "temperature_decay 1.5"),
        ({"smallest_weight": 0.2}, "smallest_weight is 0.2, it must be at least 0 and below 1/9"),
        ({"beta": -1.0}, "beta is -1.0"),
    ],
)
def test_wrong_numbers_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sampler_of(**settings)
