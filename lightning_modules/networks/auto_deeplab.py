"""Auto-DeepLab's network (Liu et al., CVPR 2019), of one architecture and of all at once.

Cells stand on a trellis: each goes down a level of resolution, stays or goes up, between stride 4 (level 0) and stride
32 (level 3). The network of an architecture is one path through it; the supernet has a cell in every place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_modules.networks.auto_deeplab_cells import Block, Cell, SuperCell, blocks_of
from lightning_modules.networks.auto_deeplab_operations import halved
from lightning_modules.networks.cells import Norm
from lightning_modules.networks.deeplab_head import ConvNormReLU, DeepLabV3Plus, PyramidClassifier, resize
from lightning_modules.networks.supernet import PathModule, Selection

STRIDES = (4, 8, 16, 32)
"""Of each level."""
LEVELS = len(STRIDES)
MOVES = ("down", "same", "up")
STEPS = (1, 0, -1)
"""Levels that each move goes down."""
TRANSITIONS = [[level + step if 0 <= level + step < LEVELS else -1 for step in STEPS] for level in range(LEVELS)]
"""The level that each move leads to from each level; -1 where there is none."""
DECODERS = ("deeplabv3plus", "search")
"""Heads: that of the final network, and that of each level in the search."""
_HALF, _QUARTER = "stem at stride 2", "stem at stride 4"


def levels_of(moves: Sequence[int]) -> list[int]:
    """The level of each cell, from the moves that lead to it."""
    levels, level = [], 0
    for move in moves:
        level = TRANSITIONS[level][move]
        levels.append(level)
    return levels


def sizes_of(quarter: Tensor) -> list[tuple[int, int]]:
    """Height and width at each level, from a map of level 0."""
    sizes = [(quarter.shape[2], quarter.shape[3])]
    while len(sizes) < LEVELS:
        sizes.append(halved(sizes[-1]))
    return sizes


class Widths:
    """Channels of everything in a network.

    Args:
        filters: of each block at level 0; doubled from level to level.
        stem: of the first two convolutions; the third has twice as many.
        head: of the head's convolutions.
        blocks: of a cell.

    Raises:
        ValueError: one is below 1.
    """

    def __init__(self, filters: int, stem: int, head: int, blocks: int):
        for name, value in {"filters": filters, "stem_channels": stem, "head_channels": head}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, at least 1 is needed")
        self.filters, self.stem, self.head, self.blocks = filters, stem, head, blocks

    def of_blocks(self, level: int) -> int:
        """Of each block of a cell."""
        return self.filters * 2**level

    def of_cell(self, level: int) -> int:
        """Of a cell's output."""
        return self.blocks * self.of_blocks(level)


class DeepLabNetwork(nn.Module):
    """Stem, cells and head; logits are brought to the size of the images.

    Args:
        body: from the stem's maps at strides 2 and 4 to logits, of any size.
        widths: of the stem.
        in_channels: of the images.
        norm: builds the normalisation layers.
    """

    def __init__(self, body: nn.Module, widths: Widths, in_channels: int, norm: Norm):
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormReLU(in_channels, widths.stem, 3, norm, stride=2), ConvNormReLU(widths.stem, widths.stem, 3, norm)
        )
        self.second_stem = nn.Sequential(
            nn.Conv2d(widths.stem, 2 * widths.stem, 3, 2, 1, bias=False), norm(2 * widths.stem)
        )
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, classes, height, width]``."""
        half = self.stem(images)
        return resize(self.body(half, self.second_stem(half)), images.shape[2:])


class Walk(nn.Module):
    """The cells along one path, and the head.

    The head's fine map is the output of the last cell before the path first goes down, or the stem's where it does so
    at once; for the published path that is the third cell, as in the authors' code.

    Args:
        moves: of each cell.
        blocks: of every cell.
        widths: of the cells.
        classes: outputs.
        decoder: one of `DECODERS`.
        norm: builds the normalisation layers.
        keep: share of operations that scheduled drop path keeps in the last cell at the end of a training.

    Raises:
        ValueError: there is no such decoder, or the share is out of range.
    """

    def __init__(
        self,
        moves: Sequence[int],
        blocks: Sequence[Block],
        widths: Widths,
        classes: int,
        decoder: str,
        norm: Norm,
        keep: float,
    ):
        super().__init__()
        if decoder not in DECODERS:
            raise ValueError(f"decoder is '{decoder}', allowed: {', '.join(DECODERS)}")
        if not 0 < keep <= 1:
            raise ValueError(f"drop_path_keep is {keep}, it must be above 0 and at most 1, which drops nothing")
        self.levels = levels_of(moves)
        before, last = widths.stem, 2 * widths.stem
        self.cells = nn.ModuleList()
        for number, (level, move) in enumerate(zip(self.levels, moves, strict=True), start=1):
            stays = 1 - number / len(moves) * (1 - keep)
            filters = widths.of_blocks(level)
            self.cells.append(Cell(blocks, last, before, filters, 2 if MOVES[move] == "down" else 1, norm, stays))
            before, last = last, widths.of_cell(level)
        self.fine = next((number for number, level in enumerate(self.levels) if level), len(moves))
        fine, stride = widths.of_cell(0) if self.fine else 2 * widths.stem, STRIDES[self.levels[-1]]
        self.head: nn.Module = (
            PyramidClassifier(last, classes, stride, widths.head, norm)
            if decoder == "search"
            else DeepLabV3Plus(last, fine, classes, stride, widths.head, norm)
        )

    def forward(self, half: Tensor, quarter: Tensor) -> Tensor:
        """The stem's maps at strides 2 and 4 to logits."""
        sizes, before, last, fine = sizes_of(quarter), half, quarter, quarter
        level = 0
        for number, (cell, after) in enumerate(zip(self.cells, self.levels, strict=True), start=1):
            # A cell that goes up works at the finer resolution from the start.
            output = cell(resize(last, sizes[after]) if after < level else last, before)
            before, last, level = last, output, after
            if number == self.fine:
                fine = output
        return self.head(last, fine)


class SuperTrellis(PathModule):
    """A cell in every place of the trellis that a path can reach, and a head for each level at its end.

    Without choices each place adds up its cell's output for each place before it, times the weight of the move from
    there (Auto-DeepLab, eq. 5); the cell's input before the last is then the output of its own level two cells before,
    where there is one. With choices it is that of the path, as in the stand-alone network: of another level it has a
    1x1 convolution of its own. Weights are those of `TrellisOfCells`.

    Args:
        selection: of its supernet.
        layers: cells of a path.
        widths: of the cells.
        classes: outputs.
        norm: builds the normalisation layers.
    """

    def __init__(self, selection: Selection, layers: int, widths: Widths, classes: int, norm: Norm):
        super().__init__(selection)
        self.layers, blocks = layers, widths.blocks
        channels = {_HALF: widths.stem, _QUARTER: 2 * widths.stem}
        channels |= {str(level): widths.of_cell(level) for level in range(LEVELS)}
        # Names of what may be the last output and the one before, for each level that a path may have come to.
        reached: dict[int, set[tuple[str, str]]] = {0: {(_QUARTER, _HALF)}}
        self.cells = nn.ModuleList()
        for _ in range(layers):
            cells, following = nn.ModuleDict(), dict[int, set[tuple[str, str]]]()
            for level in range(LEVELS):
                before = {origin: reached[origin] for origin in reached if level in TRANSITIONS[origin]}
                if not before:
                    continue
                pairs = sorted(set().union(*before.values()))
                lasts, befores = ({pair[place]: channels[pair[place]] for pair in pairs} for place in (0, 1))
                cells[str(level)] = SuperCell(
                    blocks, lasts, befores, widths.of_blocks(level), norm, any(origin < level for origin in before)
                )
                following[level] = {(str(level), last) for last, _ in pairs}
            self.cells.append(cells)
            reached = following
        self.heads = nn.ModuleDict(
            {
                str(level): PyramidClassifier(widths.of_cell(level), classes, STRIDES[level], widths.head, norm)
                for level in reached
            }
        )

    def forward(self, half: Tensor, quarter: Tensor) -> Tensor:
        """The stem's maps at strides 2 and 4 to logits: of all levels together at the resolution of level 0."""
        path = self.selection.path
        if path.choices is not None:
            return self._chosen(half, quarter, path.choices, path.weights)
        assert path.weights is not None
        return self._relaxed(half, quarter, path.weights)

    def _chosen(
        self, half: Tensor, quarter: Tensor, choices: Sequence[int], weights: Sequence[Tensor] | None
    ) -> Tensor:
        sizes, moves, blocks = sizes_of(quarter), choices[: self.layers], blocks_of(choices[self.layers :])
        before, last, names, level = half, quarter, (_QUARTER, _HALF), 0
        for layer, (move, after) in enumerate(zip(moves, levels_of(moves), strict=True)):
            cell = self._cell(layer, after)
            states = cell.states(resize(last, sizes[after]) if after < level else last, names[0], before, names[1])
            own = None if weights is None else weights[self.layers :]
            output = cell.chosen(states, 1 + (after > level), blocks, own)
            if weights is not None:
                output = output * weights[layer][level, move]
            before, last, names, level = last, output, (str(after), names[0]), after
        return self.heads[str(level)](last, quarter)

    def _relaxed(self, half: Tensor, quarter: Tensor, weights: Sequence[Tensor]) -> Tensor:
        sizes = sizes_of(quarter)
        # Outputs by level, of the last cells and of those before, each with its name.
        last: dict[int, tuple[Tensor, str]] = {0: (quarter, _QUARTER)}
        before: dict[int, tuple[Tensor, str]] = dict.fromkeys(range(LEVELS), (half, _HALF))
        for layer, cells in enumerate(self.cells):
            outputs: dict[int, tuple[Tensor, str]] = {}
            for name in cells:  # type: ignore[attr-defined]
                level, cell = int(name), self._cell(layer, int(name))
                terms = []
                for origin, (x, x_name) in last.items():
                    if level not in TRANSITIONS[origin]:
                        continue
                    earlier, earlier_name = before.get(level, (None, ""))
                    states = cell.states(
                        resize(x, sizes[level]) if level < origin else x, x_name, earlier, earlier_name
                    )
                    output = cell.relaxed(states, 1 + (level > origin), weights[self.layers :])
                    terms.append(output * weights[layer][origin, TRANSITIONS[origin].index(level)])
                outputs[level] = (functools.reduce(torch.add, terms), name)
            # The stem's map at stride 4 is what comes before the second cell of every level, as on a path.
            before = dict.fromkeys(range(LEVELS), last[0]) if layer == 0 else last
            last = outputs
        logits = [resize(self.heads[str(level)](x, quarter), sizes[0]) for level, (x, _) in last.items()]
        return functools.reduce(torch.add, logits)

    def _cell(self, layer: int, level: int) -> SuperCell:
        return self.cells[layer][str(level)]  # type: ignore[index]

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The tensors of a path's cells and of its last level's head, by the keys of `Walk` with the search's head."""
        moves, blocks = choices[: self.layers], blocks_of(choices[self.layers :])
        state: dict[str, Tensor] = {}
        names, level = (_QUARTER, _HALF), 0
        for layer, after in enumerate(levels_of(moves)):
            cell = self._cell(layer, after)
            own = cell.standalone_state(1 + (after > level), *names, blocks)
            state |= {f"cells.{layer}.{key}": value for key, value in own.items()}
            names, level = (str(after), names[0]), after
        return state | {f"head.{key}": value for key, value in self.heads[str(level)].state_dict().items()}


def running_norm(eps: float, momentum: float) -> Callable[[int], nn.Module]:
    """Normalisation that keeps running statistics."""
    return functools.partial(nn.BatchNorm2d, eps=eps, momentum=momentum)
