"""What samplers that learn by gradient pay beside the loss, and how often they do."""

import pytest
import torch

from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.darts import DARTSSampler
from lightning_modules.path_samplers.gumbel import GumbelSampler
from lightning_modules.path_samplers.setn import SETNSampler
from search.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
CHEAPEST = "avg_pool_3x3"


class Priced:
    """Every operation but one costs something, by its name."""

    def penalty(self, weights):
        return sum(
            (each * torch.tensor([float(name != CHEAPEST) for name in decision.choices])).sum()
            for each, decision in zip(weights, self.space.decisions, strict=True)
        )


SAMPLERS = {
    "darts": (DARTSSampler, {}),
    "darts, second order": (DARTSSampler, {"order": 2}),
    "setn": (SETNSampler, {}),
    "gdas": (GumbelSampler, {"temperature": 1.0, "final_temperature": 1.0}),
}


def step_of(number, loss):
    # A weight, so that the second order has something to unroll.
    network = torch.nn.Linear(1, 1)
    return ArchitectureStep(
        network, lambda path: loss(path, network), lambda path: loss(path, network), lambda _: None, 0, number, 0.0, 0.1
    )


def indifferent(path, network):
    """A loss that every operation has alike."""
    return network.weight.square().sum() + sum(weights.sum() for weights in path.weights)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_penalty_leads_to_the_operations_that_cost_nothing(name):
    kind, settings = SAMPLERS[name]
    sampler = type("Cheap", (Priced, kind), {})(SPACE, learning_rate=0.1, **settings)
    for number in range(60):
        sampler.learn(step_of(number, indifferent))
    cheapest = [decision.choices.index(CHEAPEST) for decision in SPACE.decisions]
    assert [int(each.argmax()) for each in sampler.logits] == cheapest
    free = kind(SPACE, learning_rate=0.1, **settings)
    for number in range(60):
        free.learn(step_of(number, indifferent))
    assert [int(each.argmax()) for each in free.logits] != cheapest


def test_loss_and_penalty_may_be_put_together_otherwise():
    class Product(Priced, DARTSSampler):
        def architecture_loss(self, loss, weights):
            return loss * self.penalty(weights)

    seen = Product(SPACE).architecture_loss(torch.tensor(2.0), [torch.ones(5)] * 6)
    assert float(seen) == 2 * 4 * 6


@pytest.mark.parametrize("kind", [DARTSSampler, SETNSampler, GumbelSampler])
def test_the_optimiser_of_the_logits_is_the_recipes(kind):
    sampler = kind(SPACE, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5))
    before = [each.detach().clone() for each in sampler.logits]

    def loss(path, network):
        return sum(weights[0] for weights in path.weights)

    step = step_of(0, loss)
    sampler.learn(step)
    if kind is not GumbelSampler:
        for old, new in zip(before, sampler.logits, strict=True):
            (gradient,) = torch.autograd.grad(old.requires_grad_().softmax(0)[0], old)
            torch.testing.assert_close(new.detach(), old.detach() - 0.5 * gradient)
    assert isinstance(sampler._optimizer, torch.optim.SGD)
    again = kind(SPACE, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5))
    again.load_state_dict(sampler.state_dict())
    assert all(torch.equal(*pair) for pair in zip(again.logits, sampler.logits, strict=True))


@pytest.mark.parametrize(
    "settings, learns",
    [
        ({}, range(6)),
        ({"steps_every": 3}, (2, 5)),
        ({"warmup": 1}, (3, 4, 5)),
        ({"steps_every": 2, "warmup": 1}, (3, 5)),
    ],
)
def test_how_often_a_sampler_learns(settings, learns):
    sampler = DARTSSampler(SPACE, **settings)
    assert [step for step in range(6) if sampler.learns_at(step, epoch=step // 3)] == list(learns)
    with pytest.raises(ValueError, match="steps_every is 0, it must be at least 1"):
        DARTSSampler(SPACE, steps_every=0)
