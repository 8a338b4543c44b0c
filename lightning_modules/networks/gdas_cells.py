"""What GDAS (Dong and Yang, CVPR 2019) adds to the cells of DARTS: a search by edges, and a fixed reduction cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.darts_cells import (
    EDGES,
    INPUTS,
    NODES,
    OPERATIONS,
    PAIRS,
    DARTSSuperCell,
    Pairs,
    edge_of,
)
from lightning_modules.networks.drop_path import DropPath
from lightning_modules.networks.supernet import Selection

REPEATED_PAIRS = tuple(
    tuple(itertools.combinations_with_replacement(range(target), 2)) for target in range(INPUTS, INPUTS + NODES)
)
"""As `PAIRS`, and a node may read the same node twice, by two operations: GDAS' rule does not rule it out."""
CHOICES_OF_AN_EDGE = len(OPERATIONS) + 1
"""An edge has every operation or, as its last choice, none."""
_GROUPS = 8
"""Of the fixed reduction cell's long convolutions."""


class EdgeSuperCell(DARTSSuperCell):
    """A `DARTSSuperCell` that can also be searched by edges, as GDAS does (its public code).

    Then a path has no choices, and one tensor of weights for each of the cell's 14 edges, in the order of `EDGES`: of
    its operations, then of none. A node is the sum over all nodes before it. Whether a path goes by edges is told by
    how many tensors it has.

    Args:
        selection: of its supernet.
        cell: its kind's number among those that are searched.
        cells: how many kinds are searched.
        channels: of the inputs and of each node.
        reduction: whether the output has half the resolution.
        norm: builds the normalisation layers.
        pairs: for each node, the pairs of nodes that an architecture may read.
    """

    def __init__(
        self,
        selection: Selection,
        cell: int,
        cells: int,
        channels: int,
        reduction: bool,
        norm: Norm = nn.BatchNorm2d,
        pairs: Pairs = PAIRS,
    ):
        super().__init__(selection, 3 * NODES * cell, channels, reduction, norm, pairs)
        self._edges, self._all = slice(len(EDGES) * cell, len(EDGES) * (cell + 1)), len(EDGES) * cells
        self._reduction = reduction

    def forward(self, before_last: Tensor, last: Tensor) -> list[Tensor]:
        """Two inputs ``[batch, channels, height, width]`` to the intermediate nodes, four maps of the same channels."""
        path = self.selection.path
        if path.choices is not None or path.weights is None or len(path.weights) != self._all:
            return super().forward(before_last, last)
        weights = path.weights[self._edges]
        active = [range(CHOICES_OF_AN_EDGE)] * len(weights) if path.active is None else path.active[self._edges]
        states = [before_last, last]
        for node in range(NODES):
            terms = [
                self.operations[edge][choice](states[source]) * weights[edge][choice]  # type: ignore[index]
                for source in range(INPUTS + node)
                for edge in (edge_of(node, source),)
                for choice in active[edge]
                if choice < len(OPERATIONS)
            ]
            states.append(sum(terms[1:], terms[0]) if terms else self._nothing(last))
        return states[INPUTS:]

    def _nothing(self, x: Tensor) -> Tensor:
        """A node that none of its edges reaches."""
        return torch.zeros_like(x[:, :, ::2, ::2] if self._reduction else x)


class FixedReductionCell(nn.Module):
    """The reduction cell that GDAS does not search (FRC; its public code): two long convolutions, two poolings.

    Its four maps are, of each input, a 1x3 and a 3x1 convolution in eight groups and a 1x1 convolution, then of each
    input max pooling.

    Args:
        channels: of the inputs and of each map; eight groups where they can be divided by eight, else as many as go.
        norm: builds the normalisation layers.
    """

    def __init__(self, channels: int, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        groups = math.gcd(_GROUPS, channels)
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(channels, channels, (1, 3), (1, 2), (0, 1), groups=groups, bias=False),
                nn.Conv2d(channels, channels, (3, 1), (2, 1), (1, 0), groups=groups, bias=False),
                norm(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 1, bias=False),
                norm(channels),
            )
            for _ in range(INPUTS)
        )
        self.poolings = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(3, 2, padding=1), norm(channels)) for _ in range(INPUTS)
        )
        self.drop_path = DropPath()

    def forward(self, before_last: Tensor, last: Tensor) -> list[Tensor]:
        """Two inputs ``[batch, channels, height, width]`` to four maps of half the resolution."""
        inputs: Sequence[Tensor] = (before_last, last)
        parts = [*zip(self.convolutions, inputs, strict=True), *zip(self.poolings, inputs, strict=True)]
        return [self.drop_path(module(x)) for module, x in parts]
