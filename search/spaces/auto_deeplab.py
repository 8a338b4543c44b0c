"""The space of Auto-DeepLab (Liu et al., CVPR 2019): a path between resolutions, and the cell that it repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.auto_deeplab import (
    LEVELS,
    MOVES,
    STRIDES,
    TRANSITIONS,
    DeepLabNetwork,
    SuperTrellis,
    Walk,
    Widths,
    levels_of,
    running_norm,
)
from lightning_modules.networks.auto_deeplab_cells import INPUTS, Block, blocks_of
from lightning_modules.networks.auto_deeplab_operations import OPERATION_NAMES, ZERO
from lightning_modules.networks.cells import Norm
from lightning_modules.networks.supernet import Supernet
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head

if TYPE_CHECKING:
    from lightning_modules.path_samplers.trellis_of_cells import TrellisOfCells

LAYERS, BLOCKS = 12, 5
CLASSES = 19
"""Of Cityscapes."""
STATES = ("last", "before", *(f"block {number}" for number in range(1, BLOCKS)))
"""What a block may read."""
PUBLISHED_LEVELS = (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)
PUBLISHED_BLOCKS = (
    Block((1, 0), (OPERATION_NAMES.index("atrous_conv_5x5"), OPERATION_NAMES.index("sep_conv_3x3"))),
    Block((1, 0), (OPERATION_NAMES.index("sep_conv_3x3"), OPERATION_NAMES.index("atrous_conv_3x3"))),
    Block((3, 1), (OPERATION_NAMES.index("sep_conv_3x3"), OPERATION_NAMES.index("sep_conv_3x3"))),
    Block((4, 2), (OPERATION_NAMES.index("sep_conv_5x5"), OPERATION_NAMES.index("sep_conv_5x5"))),
    Block((3, 5), (OPERATION_NAMES.index("sep_conv_5x5"), OPERATION_NAMES.index("atrous_conv_5x5"))),
)


class AutoDeepLab(SearchSpace):
    """Where each of twelve cells goes, a level of resolution down, up, or none; and five blocks, the same in each cell.

    Levels have strides of 4, 8, 16 and 32 pixels; the stem ends at 4. A path of twelve free moves is one of 75,025 (the
    paper's 2.9e4 is the number of eleven: its first cell stays at 4). A block reads two states, which may be the same
    one, and applies one of eight operations to each: (2*3*4*5*6)^2 * 8^10 cells, the paper's 5.6e14.

    Networks label every pixel: they give logits ``[batch, classes, height, width]``, or one number a pixel for data
    without classes.

    Args:
        layers: cells of a path, at least 1.
        blocks: of a cell, 1 to 5.

    Raises:
        ValueError: a number is out of range.
    """

    classifies = False

    def __init__(self, layers: int = LAYERS, blocks: int = BLOCKS):
        if layers < 1 or not 1 <= blocks <= BLOCKS:
            raise ValueError(f"layers is {layers} (at least 1) and blocks {blocks} (1 to {BLOCKS})")
        self.layers, self.blocks = layers, blocks
        self.name = "auto_deeplab"
        if (layers, blocks) != (LAYERS, BLOCKS):
            self.name += f"_{layers}x{blocks}"
        # The stem ends at the first level, from which no move leads up.
        moves = [Decision(f"cell {number}", MOVES[:2] if number == 1 else MOVES) for number in range(1, layers + 1)]
        cell = [
            Decision(f"block {block + 1} {name}", OPERATION_NAMES if "operation" in name else STATES[: block + INPUTS])
            for block in range(blocks)
            for name in ("first input", "second input", "first operation", "second operation")
        ]
        self.decisions = (*moves, *cell)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Two cells of a block."""
        return {"layers": 2, "blocks": 1}

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"filters": 2, "stem_channels": 2, "head_channels": 4}

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """All choices but moves beyond stride 4 and stride 32; arguments as for every space."""
        valid = super().valid_choices(prefix)
        if prefix.shape[-1] >= self.layers:
            return valid
        level = torch.zeros(prefix.shape[:-1], dtype=torch.long)
        table = torch.tensor(TRANSITIONS)
        for t in range(prefix.shape[-1]):
            level = table[level, prefix[..., t]].clamp(min=0)  # of a prefix that is wrong itself, anything goes
        return table[level][..., : valid.shape[-1]] >= 0

    def relaxation(self) -> TrellisOfCells:
        """Probabilities of moves on the trellis, and of operations on every edge of the cell."""
        from lightning_modules.path_samplers.trellis_of_cells import TrellisOfCells

        return TrellisOfCells(self, self.layers, self.blocks)

    def canonical(self, archs: Tensor) -> Tensor:
        """The two halves of each block in order, and ``zero`` reading the last output, whatever it reads.

        Int64 ``[..., decisions]`` to the same.
        """
        moves, cells = archs[..., : self.layers], archs[..., self.layers :]
        inputs, operations = cells.unflatten(-1, (self.blocks, 2, 2)).unbind(-2)
        inputs = torch.where(operations == ZERO, 0, inputs)
        halves = (inputs * len(OPERATION_NAMES) + operations).sort(dim=-1).values
        inputs, operations = halves // len(OPERATION_NAMES), halves % len(OPERATION_NAMES)
        return torch.cat([moves, torch.stack([inputs, operations], dim=-2).flatten(-3)], dim=-1)

    def from_levels(self, levels: Sequence[int], blocks: Sequence[Block]) -> Architecture:
        """The architecture whose cells have these levels, 0 for stride 4 to 3 for stride 32, and these blocks.

        Raises:
            ValueError: it does not belong to this space.
        """
        if any(not 0 <= level < LEVELS for level in levels):
            raise ValueError(f"{self.name}: levels are {list(levels)}, allowed: 0 to {LEVELS - 1}")
        moves, here = [], 0
        for level in levels:
            if level not in TRANSITIONS[here]:
                raise ValueError(f"{self.name}: no move leads from level {here} to level {level}")
            moves.append(TRANSITIONS[here].index(level))
            here = level
        cell = [number for block in blocks for number in (*block.sources, *block.operations)]
        return self.check((*moves, *cell))

    def published(self) -> Architecture:
        """What Auto-DeepLab found on Cityscapes; of a smaller space its first cells and blocks."""
        return self.from_levels(PUBLISHED_LEVELS[: self.layers], PUBLISHED_BLOCKS[: self.blocks])

    def levels(self, architecture: Architecture) -> list[int]:
        """The level of each cell, 0 for stride 4 to 3 for stride 32."""
        return levels_of(self.check(architecture)[: self.layers])

    def cell(self, architecture: Architecture) -> tuple[Block, ...]:
        """The blocks of its cells."""
        return blocks_of(self.check(architecture)[self.layers :])

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The path from cell to cell, and the graph inside of a cell; operations ``zero`` are left out."""
        architecture = self.check(architecture)
        places = ["stem", *(_place(k, level) for k, level in enumerate(self.levels(architecture), start=1))]
        moves = architecture[: self.layers]
        edges = [Edge(a, b, MOVES[move]) for a, b, move in zip(places, places[1:], moves, strict=False)]
        for number, block in enumerate(self.cell(architecture), start=1):
            edges += [
                Edge(STATES[source], f"block {number}", OPERATION_NAMES[operation])
                for source, operation in zip(block.sources, block.operations, strict=True)
                if operation != ZERO
            ]
        return edges + [Edge(f"block {number}", "output", "beside") for number in range(1, self.blocks + 1)]

    def places(self) -> dict[str, tuple[float, float]]:
        """The trellis with a row for each level, cells from left to right, and below it the states of a cell."""
        places = {"stem": (0.0, 0.0)}
        for k in range(1, self.layers + 1):
            places |= {_place(k, level): (float(k), float(level)) for level in range(min(k + 1, LEVELS))}
        columns, row = max(self.layers / (self.blocks + 1), 1.8), LEVELS + 1.0
        places |= {"last": (0.0, row), "before": (0.0, row + 1.6)}
        for number in range(1, self.blocks + 1):
            places[f"block {number}"] = (columns * number, row + 1.6 * (number % 2))
        return places | {"output": (columns * (self.blocks + 1), row + 0.8)}

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        filters: int = 20,
        stem_channels: int = 64,
        head_channels: int = 256,
        decoder: str = "deeplabv3plus",
        drop_path_keep: float = 1.0,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
    ) -> nn.Module:
        """The network of an architecture, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: of the network, 19 classes by default.
            filters: of each block at stride 4, F: 20, 32 and 48 for Auto-DeepLab-S, -M and -L.
            stem_channels: of the first two convolutions; the third has twice as many.
            head_channels: of the head's convolutions.
            decoder: ``deeplabv3plus``, or ``search`` for the head that each level has in the supernet.
            drop_path_keep: share of operations that scheduled drop path keeps in the last cell at the end of a
                training, one of a `PixelClassificationModule` for instance; 1 for all.
            norm_eps: of batch normalisation (the authors' code: 0.001).
            norm_momentum: share of a step in its running statistics (the authors' code, for a million steps: 0.0003).

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes, height, width]``.
        """
        architecture = self.check(architecture)
        widths = Widths(filters, stem_channels, head_channels, self.blocks)
        norm = running_norm(norm_eps, norm_momentum)
        moves, blocks = architecture[: self.layers], self.cell(architecture)
        walk = Walk(moves, blocks, widths, head.maps_or(CLASSES), decoder, norm, drop_path_keep)
        return DeepLabNetwork(walk, widths, head.in_channels, norm)

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        filters: int = 8,
        stem_channels: int = 20,
        head_channels: int = 256,
        decoder: str = "search",
    ) -> Supernet:
        """The trellis with every cell and every operation; arguments as for `build`, with the search's decoder alone.

        Raises:
            ValueError: another decoder is asked for.
        """
        if decoder != "search":
            raise ValueError(f"{self.name}: decoder is '{decoder}', a supernet has: search")
        widths = Widths(filters, stem_channels, head_channels, self.blocks)
        return Supernet(
            lambda selection: DeepLabNetwork(
                SuperTrellis(selection, self.layers, widths, head.maps_or(CLASSES), norm),
                widths,
                head.in_channels,
                norm,
            )
        )

    def count_paths(self) -> int:
        """How many paths through the trellis there are."""
        ends = {0: 1}
        for _ in range(self.layers):
            ends = {
                level: sum(count for origin, count in ends.items() if level in TRANSITIONS[origin])
                for level in range(LEVELS)
                if any(level in TRANSITIONS[origin] for origin in ends)
            }
        return sum(ends.values())

    def count_cells(self) -> int:
        """How many cells there are."""
        return math.prod(self.sizes[self.layers :])


def _place(cell: int, level: int) -> str:
    return f"{cell} /{STRIDES[level]}"
