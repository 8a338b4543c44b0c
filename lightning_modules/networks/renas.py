"""The cell of RENAS (Chen et al., CVPR 2019) and the networks that stack it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import FactorizedReduce, Norm, ReLUConvNorm, build_operation
from lightning_modules.networks.darts_cells import SeparableConvolution

NODES = 5
"""Nodes of a cell."""
INPUTS = 2
"""Cell outputs that a cell reads: 0 is that of the cell before the last one, 1 the last one's."""


def _one_by_seven(channels: int, stride: int, norm: Norm) -> nn.Module:
    """A 1x7 and a 7x1 convolution, one behind the other, as in NASNet; the normalisation stands behind each."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
        norm(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
        norm(channels),
    )


OPERATIONS: dict[str, Callable[[int, int, Norm], nn.Module]] = {
    "sep_conv_3x3": lambda channels, stride, norm: SeparableConvolution(channels, 3, stride, norm),
    "sep_conv_5x5": lambda channels, stride, norm: SeparableConvolution(channels, 5, stride, norm),
    "sep_conv_7x7": lambda channels, stride, norm: SeparableConvolution(channels, 7, stride, norm),
    "avg_pool_3x3": lambda channels, stride, norm: build_operation("avg_pool_3x3", channels, stride=stride, norm=norm),
    "max_pool_3x3": lambda channels, stride, norm: nn.MaxPool2d(3, stride, padding=1),
    "conv_3x3": lambda channels, stride, norm: ReLUConvNorm(channels, channels, 3, stride, norm),
    "conv_1x7_7x1": _one_by_seven,
    "identity": lambda channels, stride, norm: nn.Identity() if stride == 1 else nn.MaxPool2d(3, stride, padding=1),
}
"""Operation name to its constructor of (channels, stride, norm), in the order of the published codes."""
OPERATION_NAMES = tuple(OPERATIONS)


@dataclass(frozen=True)
class Term:
    """One of the two summands of a node.

    Attributes:
        operation: one of `OPERATION_NAMES`.
        source: what it reads: 0 and 1 are the cell's inputs, 2 its first node.
    """

    operation: str
    source: int


def unread(nodes: Sequence[tuple[Term, Term]]) -> list[int]:
    """States that no node reads: the cell's output, but for its inputs."""
    read = {term.source for node in nodes for term in node}
    return [INPUTS + node for node in range(len(nodes)) if INPUTS + node not in read]


class RENASCell(nn.Module):
    """A cell with what fits its inputs to it.

    An operation has its weights by the name of its place, its kind and what it reads, so a child that inherits by name
    and shape inherits the weights of every operation that kept all three, and of no other.

    Args:
        nodes: of the cell.
        before_last: channels of the output before the last one.
        last: channels of the last output.
        channels: of each node.
        halve_before_last: whether the output before the last one has twice the last one's resolution.
        reduction: whether the output has half the resolution; operations on the inputs then have stride 2.
        norm: builds the normalisation layers.
    """

    def __init__(
        self,
        nodes: Sequence[tuple[Term, Term]],
        before_last: int,
        last: int,
        channels: int,
        halve_before_last: bool,
        reduction: bool,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        self.fit_before_last: nn.Module = (
            FactorizedReduce(before_last, channels, 2, norm)
            if halve_before_last
            else ReLUConvNorm(before_last, channels, 1, norm=norm)
        )
        self.fit_last = ReLUConvNorm(last, channels, 1, norm=norm)
        self.operations = nn.ModuleDict()
        self._nodes: list[list[tuple[str, int]]] = []
        for node, terms in enumerate(nodes):
            keys = []
            for place, term in enumerate(terms):
                key = f"{node}_{place}_{term.operation}_from_{term.source}"
                stride = 2 if reduction and term.source < INPUTS else 1
                self.operations[key] = OPERATIONS[term.operation](channels, stride, norm)
                keys.append((key, term.source))
            self._nodes.append(keys)
        # A normal cell hands its first input on as well, as the published graph does.
        self._output = ([] if reduction else [0]) + unread(nodes)
        self.out_channels = channels * len(self._output)

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """The last two outputs to the next, ``[batch, out_channels, height, width]``."""
        states = [self.fit_before_last(before_last), self.fit_last(last)]
        for node in self._nodes:
            (one, first), (other, second) = node
            states.append(self.operations[one](states[first]) + self.operations[other](states[second]))
        return torch.cat([states[source] for source in self._output], dim=1)


class RENASNetwork(nn.Module):
    """Three stages of normal cells with a reduction cell between them (RENAS, published code).

    The stem for CIFAR is a 3x3 convolution of 3 C channels. That for ImageNet is one of 32 channels with stride 2 and
    no padding, and two reduction cells of C / 4 and C / 2 channels.

    Args:
        nodes: of the cell, which normal and reduction cells share.
        num_classes: outputs of the classifier.
        channels: of a node of the first stage, C; doubled by each reduction cell.
        cells: normal cells of a stage.
        stem: ``cifar`` or ``imagenet``.
        dropout: before the classifier.
        in_channels: of the images.
        norm: builds the normalisation layers.

    Raises:
        ValueError: there is no such stem, or a number is out of range.
    """

    def __init__(
        self,
        nodes: Sequence[tuple[Term, Term]],
        num_classes: int,
        channels: int = 32,
        cells: int = 6,
        stem: str = "cifar",
        dropout: float = 0.0,
        in_channels: int = 3,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem is '{stem}', allowed: cifar, imagenet")
        if channels < 4 or cells < 1:
            raise ValueError(f"channels is {channels} and cells is {cells}, at least 4 and 1 are needed")
        plan = ([(channels, False)] * cells + [(2 * channels, True)]) + (
            [(2 * channels, False)] * cells + [(4 * channels, True)] + [(4 * channels, False)] * cells
        )
        if stem == "imagenet":
            last = 32
            self.stem = nn.Sequential(nn.Conv2d(in_channels, last, 3, 2, bias=False), norm(last))
            plan = [(channels // 4, True), (channels // 2, True), *plan]
        else:
            last = 3 * channels
            self.stem = nn.Sequential(nn.Conv2d(in_channels, last, 3, padding=1, bias=False), norm(last))
        self.cells, before_last, halve = nn.ModuleList(), last, False
        for width, reduction in plan:
            cell = RENASCell(nodes, before_last, last, width, halve, reduction, norm)
            self.cells.append(cell)
            before_last, last, halve = last, cell.out_channels, reduction
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(last, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to the last cell's output."""
        before_last = last = self.stem(images)
        for cell in self.cells:
            before_last, last = last, cell(before_last, last)
        return torch.relu(last)

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.classifier(self.dropout(self.features(images).mean((2, 3))))
