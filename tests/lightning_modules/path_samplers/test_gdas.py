"""GDAS finds the cells that made the data: every edge learns its operation, or none."""

import pytest
import torch
from torch import nn

from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.gdas import GDASSampler
from search.spaces.gdas import PUBLISHED, PUBLISHED_FRC, FixedReduction, GDASCells

PLANTED = {
    "both cells": (GDASCells(), PUBLISHED["GDAS_V1"]),
    "FRC": (FixedReduction(), PUBLISHED_FRC["GDAS_F1"]),
}
EDGES, OPERATIONS = 14, 7


class Columns(nn.Module):
    """Operation ``k`` of an edge gives its own column of the input, times a shared weight; none gives nothing."""

    def __init__(self, edges):
        super().__init__()
        self.scale = nn.Parameter(torch.full((edges, OPERATIONS), 0.5))

    def forward(self, x, path):
        chosen = [(edge, choice) for edge, (choice,) in enumerate(path.active) if choice < OPERATIONS]
        return sum(path.weights[e][k] * self.scale[e, k] * x[:, e, k] for e, k in chosen)


def terms_of(space, arch):
    """(edge, operation) of everything that an architecture computes."""
    found = set()
    for cell, nodes in enumerate(space.cells(arch).values()):
        first = EDGES * cell
        for inputs, node in enumerate(nodes, start=2):
            for source, name in zip(node.sources, node.operations, strict=True):
                found.add((first + source, space.decisions[1].choices.index(name)))
            first += inputs
    return found


@pytest.mark.parametrize("name", PLANTED)
def test_finds_the_cells_that_made_the_data(name):
    space, text = PLANTED[name]
    planted = space.parse(text)
    terms = terms_of(space, planted)
    network = Columns(EDGES * len(space.cell_names))
    sampler = GDASSampler(space, learning_rate=0.2, weight_decay=0.0, temperature=3.0)

    def loss(seed):
        x = torch.randn(64, len(network.scale), OPERATIONS, generator=torch.Generator().manual_seed(seed))
        y = sum(x[:, edge, choice] for edge, choice in terms)
        return lambda path: nn.functional.mse_loss(network(x, path), y)

    steps, optimizer = 250, torch.optim.SGD(network.parameters(), lr=0.03)
    for step in range(steps):
        optimizer.zero_grad()
        loss(2 * step)(sampler.path(0, step)).backward()
        optimizer.step()
        sampler.learn(
            ArchitectureStep(network, loss(2 * step), loss(2 * step + 1), lambda p: None, 0, step, step / steps, 0.02)
        )

    def never(archs):
        raise AssertionError("GDAS evaluates nothing")

    found = sampler.choose(never, 3, 0)
    assert found[0] == planted and len(set(found)) == 3


def test_a_path_runs_one_operation_an_edge_and_is_detached():
    space = GDASCells()
    path = GDASSampler(space).path(0, 1)
    assert path.choices is None and len(path.weights) == len(path.active) == 2 * EDGES
    for weights, (choice,) in zip(path.weights, path.active, strict=True):
        assert weights.tolist() == [float(k == choice) for k in range(OPERATIONS + 1)] and not weights.requires_grad
