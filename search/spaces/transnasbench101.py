"""The micro (cell) space of TransNAS-Bench-101 (Duan et al., CVPR 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightning_modules.networks.cells import Cell, ModuleNetwork, Norm, build_operation
from lightning_modules.networks.supernet import Selection, SuperCell, Supernet
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head

OPERATION_NAMES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
"""In the order of their digits in the architecture string."""
EDGES = tuple((target, source) for target in range(1, 4) for source in range(target))
"""(target node, source node) in the order of the architecture string."""
BASE_CHANNELS, MODULES = 64, "41414"
"""The micro space's one macro skeleton."""


class TransNASBench101Micro(SearchSpace):
    """Four nodes, six edges, four operations an edge: 4,096 cells.

    The canonical string is the benchmark's, ``64-41414-a_bc_def``: 64 channels behind the stem, one digit a module,
    then one digit an edge, in the order 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2. A module is two cells, and its digit says
    what the first one changes: 1 nothing, 4 half the resolution and twice the channels.

    Verified in the benchmark's public code (README, ``net_macro.py``, ``cell_micro.py``, ``cell_ops.py``): the meaning
    of the string, the stem, the strided skip connection, the classification head, the initialisation. Parameter
    counts at 64 channels equal those that NAS-Bench-Suite-Zero published from its own implementation (100 classes).

    Assumed: that fewer channels than 64 rank the cells much as 64 do. The decoders of the benchmark's dense and
    siamese tasks are not built here.
    """

    name = "transnasbench101_micro"
    decisions = tuple(Decision(f"{target}<-{source}", OPERATION_NAMES) for target, source in EDGES)

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"channels": 4}

    def format(self, architecture: Architecture) -> str:
        """The benchmark's string; `parse` reads it back."""
        a, *digits = (str(choice) for choice in self.check(architecture))
        return f"{BASE_CHANNELS}-{MODULES}-{a}_{''.join(digits[:2])}_{''.join(digits[2:])}"

    def parse(self, text: str) -> Architecture:
        """The architecture of a benchmark string.

        Raises:
            ValueError: the string is not one of this space; says which part is wrong.
        """
        prefix = f"{BASE_CHANNELS}-{MODULES}-"
        if not text.startswith(prefix):
            raise ValueError(f"{self.name}: '{text}' must begin with '{prefix}', as in {prefix}1_02_333")
        nodes = text.removeprefix(prefix).split("_")
        if [len(node) for node in nodes] != [1, 2, 3]:
            raise ValueError(f"{self.name}: the cell of '{text}' must have 1, 2 and 3 digits, as in {prefix}1_02_333")
        allowed = "".join(str(choice) for choice in range(len(OPERATION_NAMES)))
        for (target, source), digit in zip(EDGES, "".join(nodes), strict=True):
            if digit not in allowed:
                names = ", ".join(f"{choice} {name}" for choice, name in enumerate(OPERATION_NAMES))
                raise ValueError(f"{self.name}: edge {target}<-{source} of '{text}' is '{digit}', allowed: {names}")
        return tuple(int(digit) for digit in "".join(nodes))

    def index(self, architecture: Architecture) -> int:
        """The architecture's place among the benchmark's strings in sorted order, 0 to 4,095.

        Raises:
            ValueError: not an architecture of this space.
        """
        return int(self.code(torch.tensor(self.check(architecture))))

    def from_index(self, index: int) -> Architecture:
        """The architecture in that place of the sorted strings.

        Raises:
            ValueError: there is no such place.
        """
        base, count = len(OPERATION_NAMES), len(EDGES)
        if not 0 <= index < base**count:
            raise ValueError(f"{self.name}: index {index} is not one of 0 to {base**count - 1}")
        return tuple(index // base**place % base for place in reversed(range(count)))

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The cell's graph, node 0 the input and node 3 the output; edges that carry nothing are left out."""
        return [
            Edge(str(source), str(target), OPERATION_NAMES[choice])
            for (target, source), choice in zip(EDGES, self.check(architecture), strict=True)
            if OPERATION_NAMES[choice] != "none"
        ]

    def build(self, architecture: Architecture, head: Head = OWN_HEAD, channels: int = 16) -> nn.Module:
        """The benchmark's backbone of that cell with a linear classifier, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: of the network; 75 classes are the benchmark's object classification.
            channels: behind the stem, even; 64 in the benchmark. Each of the three digits 4 doubles them.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes]``. It divides the
            resolution by 32; the benchmark's images are 256 x 256.
        """
        names = [OPERATION_NAMES[choice] for choice in self.check(architecture)]

        def build_cell(inputs: int, outputs: int, stride: int) -> Cell:
            # Only the edges that leave the cell's input change resolution and channels.
            return Cell(
                [
                    build_operation(name, inputs, outputs, stride) if source == 0 else build_operation(name, outputs)
                    for name, (_, source) in zip(names, EDGES, strict=True)
                ]
            )

        return ModuleNetwork(build_cell, head.classes_or(75), channels, MODULES, head.in_channels)

    def build_supernet(self, norm: Norm = nn.BatchNorm2d, head: Head = OWN_HEAD, channels: int = 16) -> Supernet:
        """The benchmark's backbone with every operation on every edge; arguments as for `build`."""

        def build(selection: Selection) -> nn.Module:
            def build_cell(inputs: int, outputs: int, stride: int) -> SuperCell:
                edges = [(inputs, outputs, stride) if source == 0 else (outputs, outputs, 1) for _, source in EDGES]
                return SuperCell(
                    selection, [[build_operation(name, *edge, norm=norm) for name in OPERATION_NAMES] for edge in edges]
                )

            return ModuleNetwork(build_cell, head.classes_or(75), channels, MODULES, head.in_channels, norm)

        return Supernet(build)
