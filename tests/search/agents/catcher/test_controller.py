import math

import pytest
import torch

from search.agents.catcher.controller import Controller, ppo_loss
from search.agents.catcher.settings import CatcherSettings
from search.randomness import TrialRandom
from search.spaces.nasbench201 import NASBench201
from tests.search.spaces.masked_space import MaskedSpace


def controller(space, trials=2, floor=0.0):
    made = Controller(space, TrialRandom(3, trials), CatcherSettings(hidden=16, uniform_floor=floor), torch.float64)
    with torch.no_grad():  # far from uniform, so that a wrong mask would show
        made.mlp.weights[-1] *= 300
    return made


def test_ppo_surrogate_by_hand():
    """Two networks of one action each, clip 0.2.

    Ratio 1.5 with advantage 2: clipped to 1.2 * 2 = 2.4. Ratio 0.5 with advantage -1: min(-0.5, -0.8) = -0.8.
    """
    behaviour = torch.tensor([[[0.2], [0.8]]]).log()
    present = torch.tensor([[[0.3], [0.4]]]).log()
    loss = ppo_loss(present, behaviour, torch.tensor([[2.0, -1.0]]), clip=0.2)
    assert loss.item() == pytest.approx(-(2.4 - 0.8) / 2)


def test_ppo_gradient_stops_where_the_ratio_is_clipped():
    behaviour = torch.tensor([[[0.2], [0.5]]]).log()
    present = torch.tensor([[[0.4], [0.5]]]).log().requires_grad_()
    ppo_loss(present, behaviour, torch.tensor([[1.0, 1.0]]), clip=0.2).sum().backward()
    assert present.grad is not None
    assert present.grad.flatten().tolist() == pytest.approx([0.0, -0.5])  # -ratio * advantage / 2 networks


def test_masked_actions_are_never_sampled_over_1e5_draws():
    space = MaskedSpace()
    made = controller(space)
    archs = made.sample(torch.zeros(2, 10, dtype=torch.float64), TrialRandom(0, 2), 50_000)
    assert archs.shape == (2, 50_000, len(space.decisions))
    assert space.is_valid(archs).all()
    log_probs, _ = made.log_probs(torch.zeros(2, 50_000, 10, dtype=torch.float64), archs)
    assert torch.isfinite(log_probs).all()


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("space", [NASBench201(), MaskedSpace()], ids=lambda space: space.name)
def test_probabilities_of_all_architectures_sum_to_one(space, floor):
    made = controller(space, floor=floor)
    z = TrialRandom(8, 2).normal(10)
    everything = torch.tensor(list(space.enumerate())).expand(2, -1, -1)
    log_probs, entropy = made.log_probs(z.unsqueeze(1).expand(-1, everything.shape[1], -1), everything)
    assert torch.allclose(log_probs.sum(-1).exp().sum(-1), torch.ones(2, dtype=torch.float64))
    assert (entropy >= -1e-12).all() and (entropy <= math.log(max(space.sizes)) + 1e-12).all()


def test_a_floor_is_a_mixture_with_uniform_choices():
    space = MaskedSpace()
    without, made = controller(space), controller(space, floor=0.1)
    archs = space.sample(TrialRandom(0, 2), 200)
    z = torch.zeros(2, 200, 10, dtype=torch.float64)
    log_probs, entropy = made.log_probs(z, archs)
    before, less = without.log_probs(z, archs)
    for t in range(len(space.sizes)):
        valid = space.valid_choices(archs[..., :t]).sum(-1)
        assert torch.allclose(log_probs[..., t].exp(), 0.9 * before[..., t].exp() + 0.1 / valid)
    assert entropy.mean() > less.mean()
    (log_probs.sum() + entropy.sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.parameters())


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_samples_follow_the_policy(floor):
    space = MaskedSpace()
    made = controller(space, trials=1, floor=floor)
    z = torch.zeros(1, 10, dtype=torch.float64)
    archs = made.sample(z, TrialRandom(5), 200_000)
    everything = torch.tensor(list(space.enumerate()))
    log_probs, _ = made.log_probs(z.expand(1, len(everything), 10), everything.unsqueeze(0))
    expected = torch.zeros(int(space.code(everything).max()) + 1, dtype=torch.float64)
    expected[space.code(everything)] = log_probs.sum(-1).exp()[0]
    observed = torch.bincount(space.code(archs[0]), minlength=len(expected)) / 200_000
    assert (observed - expected).abs().max() < 5 * math.sqrt(0.25 / 200_000)


def test_entropy_of_masked_choices_has_a_finite_gradient():
    made = controller(MaskedSpace())
    archs = MaskedSpace().sample(TrialRandom(0, 2), 5)
    log_probs, entropy = made.log_probs(torch.zeros(2, 5, 10, dtype=torch.float64), archs)
    (log_probs.sum() + entropy.sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.parameters())
