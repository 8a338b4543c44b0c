"""The price of an operation, against whole networks, and what a search does with it."""

import pytest
import torch
from torch import nn

from lightning_modules.networks.cost.complexity import count_parameters
from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.cas import CASSampler
from search.attributes.base import Attribute
from search.attributes.operation_cost import OperationCost
from search.attributes.parameters import Parameters
from search.spaces.cas import CASBackbone, CASMultiScale
from search.spaces.fbnet import FBNet

BUILD = {"channels": 2, "cells": 1, "stages": 2, "head_channels": 8}
SPACES = [CASBackbone(), CASMultiScale()]
EDGES = 8
"""Operations of a cell."""


def parameters(space):
    return Parameters(space, build=BUILD)


class Counting(Attribute):
    """Parameters, and how often they were asked for."""

    name = "counted"

    def __init__(self, space):
        super().__init__(space)
        self.asked = []

    def measure(self, architectures):
        self.asked += architectures
        return [float(count_parameters(self.space.build(arch, **BUILD))) for arch in architectures]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_prices_add_up_to_the_networks_of_one_operation(space):
    cost = OperationCost(space, parameters, normalised=False)
    assert cost.costs()["identity"] == 0 and all(float(row[0]) == 0 for row in cost.prices())
    for name in cost.operations:
        arch = tuple(each.choices.index(name) if name in each.choices else 0 for each in space.decisions)
        total = cost.constant() + sum(float(row[k]) for row, k in zip(cost.prices(), arch, strict=True))
        assert total == pytest.approx(count_parameters(space.build(arch, **BUILD)))
    for decision, row in zip(space.decisions, cost.prices(), strict=True):
        assert ("inputs" in decision.name) == (not row.any())


def test_the_largest_price_is_1_shared_among_the_edges():
    space = SPACES[0]
    plain, shares = OperationCost(space, parameters, normalised=False), OperationCost(space, parameters)
    assert max(map(abs, shares.costs().values())) == 1
    assert max(float(row.max()) for row in shares.prices()) == pytest.approx(1 / (2 * EDGES))
    scale = max(map(abs, plain.costs().values()))
    assert shares.costs() == pytest.approx({name: cost / scale for name, cost in plain.costs().items()})


def test_each_network_is_measured_once():
    space, made = SPACES[1], []
    cost = OperationCost(space, lambda given: made.append(Counting(given)) or made[0])
    assert not made[0].asked
    for _ in range(3):
        cost.prices(), cost.constant()
    assert len(made[0].asked) == len(set(made[0].asked)) == len(cost.operations) == 7


def test_what_has_no_identity_and_what_costs_nothing_is_refused():
    with pytest.raises(ValueError, match="fbnet: no choice is called 'identity'"):
        OperationCost(FBNet([1]), parameters)
    assert OperationCost(FBNet([1, 1]), Parameters, identity="skip").costs()["skip"] == 0

    class Nothing(Counting):
        def measure(self, architectures):
            return [5.0] * len(architectures)

    with pytest.raises(ValueError, match="cas_multi_scale: counted is the same for every operation"):
        OperationCost(SPACES[1], Nothing).prices()


# ---- the search ----------------------------------------------------------------------------------------------------


def search(space, cost, weight, steps=30):
    """The likeliest architecture where the costliest operation is the best everywhere, and identities the worst."""
    sampler, costs = CASSampler(space, lambda given: cost, weight, learning_rate=0.2), cost.costs()
    worth = [torch.tensor([costs.get(name, 0.0) / EDGES for name in each.choices]) for each in space.decisions]

    def loss(path):
        return -0.5 * torch.stack([(own * row).sum() for own, row in zip(path.weights, worth, strict=True)]).sum()

    for step in range(steps):
        sampler.learn(ArchitectureStep(nn.Module(), loss, loss, lambda parameters: None, 0, step, 0.0, 0.1))
    (arch,) = sampler.likeliest(1)
    return {
        each.choices[choice] for each, choice in zip(space.decisions, arch, strict=True) if "inputs" not in each.name
    }


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_best_operation_is_found_unless_its_price_rules_it_out(space):
    """Worth and price are both shares of the cost: at a weight above half of the worth's share, cheap ones win."""
    cost = OperationCost(space, parameters)
    costs = cost.costs()
    planted = {name for name, price in costs.items() if price == max(costs.values())}
    assert search(space, cost, 0.1) <= planted
    cheap = {name for name, price in costs.items() if price <= 0}
    assert cheap == {"identity", "max_pool_3x3"} & set(costs)
    assert search(space, cost, 10.0) <= cheap
