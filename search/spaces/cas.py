"""The spaces of CAS (customizable architecture search, Zhang et al., CVPR 2019): first a backbone, then its scales."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_modules.networks.cas import BACKBONE_OPERATIONS, SCALE_OPERATIONS, STAGES, CASNetwork
from lightning_modules.networks.cells import Norm
from lightning_modules.networks.darts_cells import (
    DECISIONS_PER_CELL,
    INPUTS,
    PAIRS,
    DARTSCell,
    DARTSSuperCell,
    NodeChoice,
    Operations,
    node_choices,
)
from lightning_modules.networks.supernet import Selection, Supernet
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head

CLASSES = 19
"""Of Cityscapes."""


def _decisions(cell: str, operations: Operations) -> tuple[Decision, ...]:
    """Of one cell: for each node the pair that it reads, and an operation on each of the two."""
    names = tuple(operations)
    return tuple(
        decision
        for node, pairs in enumerate(PAIRS, start=INPUTS)
        for decision in (
            Decision(f"{cell} {node} inputs", tuple(f"{earlier},{later}" for earlier, later in pairs)),
            Decision(f"{cell} {node} first", names),
            Decision(f"{cell} {node} second", names),
        )
    )


def _arrows(cell: str, nodes: tuple[NodeChoice, ...]) -> list[Edge]:
    return [
        Edge(f"{cell} {source}", f"{cell} {node}", name)
        for node, choice in enumerate(nodes, start=INPUTS)
        for source, name in zip(choice.sources, choice.operations, strict=True)
    ]


class CASBackbone(SearchSpace):
    """A normal and a reduction cell of four nodes, each the same wherever it stands: (180 * 7^8)^2 architectures.

    As in `DARTS`, with operations of CAS (assumed: the paper's lists are not known here). Networks label every pixel:
    they give logits ``[batch, classes, height, width]``, or one number a pixel for data without classes.
    """

    name = "cas_backbone"
    classifies = False
    cells = ("normal", "reduction")
    decisions = tuple(decision for cell in cells for decision in _decisions(cell, BACKBONE_OPERATIONS))

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"channels": 2, "cells": 1, "stages": 2, "head_channels": 4}

    def nodes(self, architecture: Architecture) -> dict[str, tuple[NodeChoice, ...]]:
        """What the nodes of each cell compute, by its name."""
        architecture, names = self.check(architecture), tuple(BACKBONE_OPERATIONS)
        return {
            cell: node_choices(architecture[k * DECISIONS_PER_CELL : (k + 1) * DECISIONS_PER_CELL], names=names)
            for k, cell in enumerate(self.cells)
        }

    def of_one_operation(self, name: str) -> Architecture:
        """The architecture that has one operation everywhere, its nodes on the two inputs of their cell."""
        return self.check(
            tuple(decision.choices.index(name) if name in decision.choices else 0 for decision in self.decisions)
        )

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """Both cells' graphs, side by side: an arrow for each operation."""
        return [arrow for cell, nodes in self.nodes(architecture).items() for arrow in _arrows(cell, nodes)]

    def cell_builder(self, architecture: Architecture, norm: Norm = nn.BatchNorm2d) -> Any:
        """What makes its cells: (channels, whether it is a reduction cell) to a `DARTSCell`."""
        nodes = self.nodes(architecture)

        def build_cell(width: int, reduction: bool) -> nn.Module:
            return DARTSCell(nodes[self.cells[reduction]], width, reduction, norm, operations=BACKBONE_OPERATIONS)

        return build_cell

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        channels: int = 16,
        cells: int = 2,
        stages: int = STAGES,
        head_channels: int = 256,
    ) -> nn.Module:
        """The network of an architecture without a multi-scale cell, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: of the network, 19 classes by default.
            channels: of a node at stride 4; doubled by each reduction cell.
            cells: normal cells of each stage.
            stages: with a reduction cell between two; 4 end at stride 32, 2 at stride 8.
            head_channels: of the head.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes, height, width]``.
        """
        build_cell = self.cell_builder(architecture)
        return CASNetwork(
            build_cell, None, head.maps_or(CLASSES), channels, cells, stages, head_channels, head.in_channels
        )

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        channels: int = 16,
        cells: int = 2,
        stages: int = STAGES,
        head_channels: int = 256,
    ) -> Supernet:
        """The network with every operation on every edge; arguments as for `build`."""

        def build(selection: Selection) -> nn.Module:
            def build_cell(width: int, reduction: bool) -> nn.Module:
                first = DECISIONS_PER_CELL * reduction
                return DARTSSuperCell(selection, first, width, reduction, norm, operations=BACKBONE_OPERATIONS)

            return CASNetwork(
                build_cell, None, head.maps_or(CLASSES), channels, cells, stages, head_channels, head.in_channels, norm
            )

        return Supernet(build)


class CASMultiScale(SearchSpace):
    """The multi-scale cell behind a fixed backbone: four nodes, 180 * 7^8 architectures.

    Its two inputs are the outputs of the backbone's last two cells (assumed). The backbone's weights are trained with
    the cell's; CAS fine-tunes them on ImageNet first.

    Args:
        backbone: an architecture of `CASBackbone`, as a run's report writes it; empty for 3x3 separable convolutions
            everywhere.

    Raises:
        ValueError: there is no such architecture.
    """

    name = "cas_multi_scale"
    classifies = False
    decisions = _decisions("scales", SCALE_OPERATIONS)

    def __init__(self, backbone: str = ""):
        space = CASBackbone()
        self.backbone = space.parse(backbone) if backbone else space.of_one_operation("sep_conv_3x3")

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A backbone of few parts."""
        space = CASBackbone()
        return {"backbone": space.format(space.of_one_operation("identity"))}

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return CASBackbone.toy_build()

    def nodes(self, architecture: Architecture) -> tuple[NodeChoice, ...]:
        """What the nodes of the cell compute."""
        return node_choices(self.check(architecture), names=tuple(SCALE_OPERATIONS))

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The multi-scale cell's graph: an arrow for each operation."""
        return _arrows("scales", self.nodes(architecture))

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        channels: int = 16,
        cells: int = 2,
        stages: int = STAGES,
        head_channels: int = 256,
    ) -> nn.Module:
        """The backbone with the multi-scale cell of an architecture; arguments as for `CASBackbone.build`."""
        nodes, build_cell = self.nodes(architecture), CASBackbone().cell_builder(self.backbone)

        def build_scales(width: int) -> nn.Module:
            return DARTSCell(nodes, width, False, operations=SCALE_OPERATIONS)

        return CASNetwork(
            build_cell, build_scales, head.maps_or(CLASSES), channels, cells, stages, head_channels, head.in_channels
        )

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        channels: int = 16,
        cells: int = 2,
        stages: int = STAGES,
        head_channels: int = 256,
    ) -> Supernet:
        """The backbone with every operation on every edge of the multi-scale cell; arguments as for `build`."""

        def build(selection: Selection) -> nn.Module:
            def build_scales(width: int) -> nn.Module:
                return DARTSSuperCell(selection, 0, width, False, norm, operations=SCALE_OPERATIONS)

            build_cell = CASBackbone().cell_builder(self.backbone, norm)
            return CASNetwork(
                build_cell,
                build_scales,
                head.maps_or(CLASSES),
                channels,
                cells,
                stages,
                head_channels,
                head.in_channels,
                norm,
            )

        return Supernet(build)
