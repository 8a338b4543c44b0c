"""Feature pyramids of merging cells, as NAS-FPN searches them (Ghiasi, Lin and Le, CVPR 2019, arXiv 1904.07392)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = (3, 4, 5, 6, 7)
"""Of the pyramid; level ``l`` has stride ``2 ** l``."""
COMBINATIONS = ("sum", "attention")
CELLS, OUTPUT_CELLS = 7, 5
Form = Literal["published", "mmdet"]


class MergingCell(NamedTuple):
    """How one more feature map is made.

    Attributes:
        first: which map of the pool it reads: 0 to 4 are the levels 3 to 7, then come the cells' own.
        second: likewise, a later one.
        level: of its output.
        combination: one of `COMBINATIONS`.
    """

    first: int
    second: int
    level: int
    combination: str


PUBLISHED = (
    MergingCell(1, 3, 4, "attention"),
    MergingCell(1, 5, 4, "sum"),
    MergingCell(0, 6, 3, "sum"),
    MergingCell(6, 7, 4, "sum"),
    MergingCell(7, 8, 5, "attention"),
    MergingCell(6, 9, 7, "attention"),
    MergingCell(9, 10, 6, "attention"),
)
"""The cells that the paper found (tensorflow/tpu, official/detection/modeling/architecture/nasfpn.py)."""


class MergingPyramid(nn.Module):
    """Five maps to five maps, through seven cells.

    A cell brings two maps to the size of its level, by nearest neighbours or by a maximum, combines them, and puts
    ReLU, a 3x3 convolution and normalisation behind. The last five cells make the outputs. To an output are also added,
    before the ReLU, the maps of its level that no cell before has read.

    Args:
        channels: of all maps.
        cells: in order.
        form: ``published``: attention weighs the finer map by the coarser one's global maximum; ``mmdet``: it weighs
            the coarser map by the finer one's mean.
    """

    def __init__(self, channels: int, cells: Sequence[MergingCell], form: Form):
        super().__init__()
        self.cells, self.form = tuple(cells), form
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=True), nn.BatchNorm2d(channels))
            for _ in cells
        )
        self.added = unread_maps(self.cells)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``[batch, channels, height, width]`` of levels 3 to 7 to maps of the same shapes."""
        pool, levels = list(maps), list(LEVELS)
        sizes = [tuple(each.shape[-2:]) for each in maps]
        for cell, convolution, others in zip(self.cells, self.convolutions, self.added, strict=True):
            size = sizes[cell.level - LEVELS[0]]
            one, other = (resized(pool[k], size) for k in (cell.first, cell.second))
            # The first of two of one level counts as the coarser one.
            coarse_first = levels[cell.first] >= levels[cell.second]
            coarse, fine = (one, other) if coarse_first else (other, one)
            merged = one + other if cell.combination == "sum" else self._attend(coarse, fine)
            for k in others:
                merged = pool[k] + merged
            pool.append(convolution(merged))
            levels.append(cell.level)
        made = dict(zip(levels[-OUTPUT_CELLS:], pool[-OUTPUT_CELLS:], strict=True))
        return tuple(made[level] for level in LEVELS)

    def _attend(self, coarse: Tensor, fine: Tensor) -> Tensor:
        if self.form == "mmdet":
            return fine + functional.adaptive_avg_pool2d(fine, 1).sigmoid() * coarse
        return coarse + fine * coarse.amax((2, 3), keepdim=True).sigmoid()


class MergingCellFPN(nn.Module):
    """A neck in the place of FPN: merging cells, stacked. mmdet knows it by this name.

    It can be read behind any of its repeats: `read_after` may be changed at any time, for a detector that has to be
    done by then. So that every repeat is worth reading, ``anytime`` trains them all: in each step that many repeats as
    are drawn from torch's random state run. (The paper puts a loss behind each of them in every step.)

    Args:
        in_channels: of the backbone's maps.
        out_channels: of the pyramid.
        num_outs: levels; always 5.
        stack_times: repeats of the cells, each with weights of its own.
        start_level: the first map of the backbone that is read; it is level 3.
        cells: ``[first, second, level, combination]`` each, as `MergingCell`; None for the published ones.
        form: ``published``: 1x1 convolutions with bias and normalisation before the pyramid, whose levels 6 and 7 are
            maxima over those below (the authors' code); ``mmdet``: these have no bias, and there is one more before
            each maximum. See also `MergingPyramid`.
        anytime: see above.
        strides: of the pyramid, in pixels, for whoever asks.

    Raises:
        ValueError: the backbone has too few maps, or too many, or the cells are none of this kind.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        stack_times: int = 7,
        start_level: int = 1,
        cells: Sequence[Sequence[Any]] | None = None,
        form: Form = "published",
        anytime: bool = False,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
    ):
        super().__init__()
        read = list(in_channels)[start_level:]
        if num_outs != len(LEVELS) or not 1 <= len(read) <= num_outs:
            raise ValueError(
                f"MergingCellFPN makes {len(LEVELS)} levels of 1 to {len(LEVELS)} maps, and num_outs is {num_outs}, "
                f"in_channels from start_level on {read}"
            )
        if form not in ("published", "mmdet"):
            raise ValueError(f"form is '{form}', allowed: published, mmdet")
        if stack_times < 1 or out_channels < 1:
            raise ValueError(f"stack_times is {stack_times} and out_channels {out_channels}, at least 1 is needed")
        self.in_channels, self.out_channels, self.num_outs = list(in_channels), out_channels, num_outs
        self.stack_times, self.start_level, self.strides = stack_times, start_level, tuple(strides)
        self.cells = PUBLISHED if cells is None else tuple(MergingCell(*each) for each in cells)
        check_cells(self.cells)
        self.form, self.anytime, self.read_after = form, anytime, stack_times
        bias = form == "published"
        self.laterals = nn.ModuleList(_convolution(each, out_channels, bias) for each in read)
        extra = range(num_outs - len(read))
        self.before_pooling = nn.ModuleList(
            nn.Identity() if form == "published" else _convolution(out_channels, out_channels, bias) for _ in extra
        )
        self.pyramids = nn.ModuleList(MergingPyramid(out_channels, self.cells, form) for _ in range(stack_times))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # as mmdet's necks, which have it from Caffe2
                nn.init.kaiming_uniform_(layer.weight, a=1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The backbone's maps to those of levels 3 to 7, behind `read_after` repeats."""
        levels = self.levels(maps)
        repeats = self.read_after
        if self.training and self.anytime:
            repeats = int(torch.randint(1, self.stack_times + 1, ()))
        for pyramid in self.pyramids[:repeats]:
            levels = pyramid(levels)
        return levels

    def levels(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the first repeat reads."""
        levels = [lateral(each) for lateral, each in zip(self.laterals, maps[self.start_level :], strict=True)]
        for convolution in self.before_pooling:
            below = convolution(levels[-1])
            # A map of one pixel stays one; mmdet would refuse it.
            levels.append(functional.max_pool2d(below, 2, 2, ceil_mode=min(below.shape[-2:]) == 1))
        return tuple(levels)


def unread_maps(cells: Sequence[MergingCell]) -> list[list[int]]:
    """For each cell the maps of the pool that are added to its output: unread ones of its level, if it is an output."""
    read, levels, added = set[int](), list(LEVELS), []
    for number, cell in enumerate(cells):
        read |= {cell.first, cell.second}
        is_output = number >= len(cells) - OUTPUT_CELLS
        unread = [k for k, level in enumerate(levels) if is_output and level == cell.level and k not in read]
        read |= set(unread)
        added.append(unread)
        levels.append(cell.level)
    return added


def check_cells(cells: Sequence[MergingCell]) -> None:
    """Refuse what makes no pyramid.

    Raises:
        ValueError: a cell reads what is not there, or the outputs are not one of each level.
    """
    if len(cells) < OUTPUT_CELLS or {cell.level for cell in cells[-OUTPUT_CELLS:]} != set(LEVELS):
        raise ValueError(f"cells: the last {OUTPUT_CELLS} make one map each of the levels {LEVELS}, these do not")
    for number, cell in enumerate(cells):
        there = len(LEVELS) + number
        if not 0 <= cell.first < cell.second < there or cell.level not in LEVELS:
            raise ValueError(f"cells: cell {number} is {tuple(cell)}; it reads two of {there} maps in ascending order")
        if cell.combination not in COMBINATIONS:
            raise ValueError(f"cells: '{cell.combination}' is not one of {', '.join(COMBINATIONS)}")


def resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map at another size: nearest neighbours to a larger one, else the maximum over equal windows.

    Where windows do not fit the map is padded by zeros on all sides, as mmcv's merging cells do.
    """
    here = tuple(x.shape[-2:])
    if here == tuple(size):
        return x
    if here < tuple(size):
        return functional.interpolate(x, size=tuple(size), mode="nearest")
    kernel = [math.ceil(side / target) for side, target in zip(here, size, strict=True)]
    missing = [step * target - side for step, target, side in zip(kernel, size, here, strict=True)]
    if any(missing):
        below, right = missing
        x = functional.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))
    return functional.max_pool2d(x, kernel, kernel)


class PyramidNetwork(nn.Module):
    """A backbone under a neck, with a classifier on the means of the neck's maps.

    A detector takes ``backbone`` and ``neck`` and leaves the classifier aside.

    Args:
        backbone: images to a tuple of maps; says their ``channels`` and ``strides``.
        neck: those to a tuple of maps of ``out_channels``.
        num_classes: of the logits.
    """

    def __init__(self, backbone: nn.Module, neck: MergingCellFPN, num_classes: int):
        super().__init__()
        self.backbone, self.neck, self.num_classes = backbone, neck, num_classes
        self.classifier = nn.Linear(neck.num_outs * neck.out_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[batch, channels, height, width]`` to logits ``[batch, classes]``."""
        return self.classifier(torch.cat([each.mean((2, 3)) for each in self.neck(self.backbone(images))], 1))


def _convolution(in_channels: int, channels: int, bias: bool) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=bias), nn.BatchNorm2d(channels))
