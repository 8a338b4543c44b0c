"""The cell space of NAS-Bench-201 (Dong and Yang, ICLR 2020), which is NATS-Bench's topology space too."""

from __future__ import annotations

import itertools
import random
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Cell, CellNetwork, Norm, build_operation
from lightning_modules.networks.supernet import Selection, SuperCell, Supernet
from search.errors import nearest
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.cell_equivalence import computed
from search.spaces.head import OWN_HEAD, Head

OPERATION_NAMES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple((target, source) for target in range(1, 4) for source in range(target))
"""(target node, source node) in the order of the architecture string."""


class NASBench201(SearchSpace):
    """Four nodes, six edges, five operations an edge: 15,625 cells.

    The canonical string is the benchmark's, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``: behind each ``~`` stands the node
    that the operation reads, and ``+`` ends a node.
    """

    name = "nasbench201"
    identity = "skip_connect"
    decisions = tuple(Decision(f"{target}<-{source}", OPERATION_NAMES) for target, source in EDGES)

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"channels": 4, "cells": 1}

    def format(self, architecture: Architecture) -> str:
        """The benchmark's string; `parse` reads it back."""
        operations = iter(self.check(architecture))
        return "+".join(
            "".join(f"|{OPERATION_NAMES[next(operations)]}~{source}" for source in range(target)) + "|"
            for target in range(1, 4)
        )

    def parse(self, text: str) -> Architecture:
        """The architecture of a benchmark string.

        Raises:
            ValueError: the string is not one of this space; says which part is wrong.
        """
        form = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        nodes = text.split("+")
        if len(nodes) != 3:
            raise ValueError(f"{self.name}: '{text}' has {len(nodes)} nodes, 3 are needed, as in {form}")
        choices = []
        for target, node in enumerate(nodes, start=1):
            parts = node.split("|")
            if len(parts) != target + 2 or parts[0] or parts[-1]:
                raise ValueError(f"{self.name}: node {target} of '{text}' is '{node}', it must read as in {form}")
            for source, part in enumerate(parts[1:-1]):
                operation, _, origin = part.rpartition("~")
                if origin != str(source):
                    raise ValueError(f"{self.name}: '{part}' of '{text}' must end in '~{source}', as in {form}")
                if operation not in OPERATION_NAMES:
                    raise ValueError(
                        f"{self.name}: edge {target}<-{source} of '{text}' is '{operation}', "
                        f"allowed: {', '.join(OPERATION_NAMES)}{nearest(operation, OPERATION_NAMES, '')}"
                    )
                choices.append(OPERATION_NAMES.index(operation))
        return tuple(choices)

    @cached_property
    def codes_by_index(self) -> Tensor:
        """The `code` of each benchmark index: int64 ``[15625]``.

        The benchmark lists the cells in lexicographic order, shuffled with Python's generator of seed 88
        (checked against every row of the published table).
        """
        order = list(range(len(OPERATION_NAMES) ** len(EDGES)))
        random.Random(88).shuffle(order)  # noqa: S311 - a published order, not a secret
        return torch.tensor(order, device="cpu")

    @cached_property
    def indices_by_code(self) -> Tensor:
        """The benchmark index of each `code`: int64 ``[15625]``, the inverse of `codes_by_index`."""
        return self.codes_by_index.argsort()

    def index(self, architecture: Architecture) -> int:
        """The architecture's row in the benchmark, 0 to 15,624.

        Raises:
            ValueError: not an architecture of this space.
        """
        return int(self.indices_by_code[self.code(torch.tensor(self.check(architecture)))])

    def from_index(self, index: int) -> Architecture:
        """The architecture in that row of the benchmark.

        Raises:
            ValueError: there is no such row.
        """
        if not 0 <= index < len(self.codes_by_index):
            raise ValueError(f"{self.name}: index {index} is not one of 0 to {len(self.codes_by_index) - 1}")
        return _digits(int(self.codes_by_index[index]), len(OPERATION_NAMES), len(EDGES))

    def representative(self, archs: Tensor) -> Tensor:
        """The first in lexicographic order of the cells that compute the same; 5,482 of them differ."""
        return torch.stack(torch.unravel_index(self._representatives[self.code(archs)], self.sizes), dim=-1)

    @cached_property
    def _representatives(self) -> Tensor:
        """By `code` the code of the representative: int64 ``[15625]``."""
        first: dict[str, int] = {}
        codes = []
        for code, cell in enumerate(itertools.product(OPERATION_NAMES, repeat=len(EDGES))):
            codes.append(first.setdefault(computed(cell), code))
        return torch.tensor(codes, device="cpu")

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The cell's graph, node 0 the input and node 3 the output; edges that carry nothing are left out."""
        return [
            Edge(str(source), str(target), OPERATION_NAMES[choice])
            for (target, source), choice in zip(EDGES, self.check(architecture), strict=True)
            if OPERATION_NAMES[choice] != "none"
        ]

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        channels: int = 16,
        cells: int = 5,
    ) -> nn.Module:
        """The benchmark's network of that cell (NAS-Bench-201, sec. 2.1), initialised from torch's random state.

        Parameters and FLOPs of the defaults are the benchmark's own.

        Args:
            architecture: of this space.
            head: of the network, 10 classes by default.
            channels: of the first stage; doubled at each of the two that follow.
            cells: in each of the three stages.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits
            ``[batch, classes]``.
        """
        names = [OPERATION_NAMES[choice] for choice in self.check(architecture)]
        return CellNetwork(
            lambda width: Cell([build_operation(name, width) for name in names]),
            num_classes=head.classes_or(10),
            channels=channels,
            cells=cells,
            in_channels=head.in_channels,
        )

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        channels: int = 16,
        cells: int = 5,
    ) -> Supernet:
        """The benchmark's network with every operation on every edge; arguments as for `build`."""

        def build(selection: Selection) -> nn.Module:
            def build_cell(width: int) -> SuperCell:
                return SuperCell(
                    selection, [[build_operation(name, width, norm=norm) for name in OPERATION_NAMES] for _ in EDGES]
                )

            return CellNetwork(build_cell, head.classes_or(10), channels, cells, head.in_channels, norm)

        return Supernet(build)


def _digits(code: int, base: int, count: int) -> Architecture:
    """The digits of a number, most significant first."""
    return tuple(code // base**place % base for place in reversed(range(count)))
