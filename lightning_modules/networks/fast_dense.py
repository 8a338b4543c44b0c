"""The decoder of FastDenseNAS: blocks that merge two maps each, all with one cell (Nekrasov et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS, LAYERS = 3, 3


class Cell(NamedTuple):
    """What a cell does with its input.

    Attributes:
        first: the first operation.
        layers: of each layer two positions to read and the operations on them. Position 0 is the input, 1 the first
            operation's output; each layer adds its two operations' outputs and their sum.
    """

    first: int
    layers: tuple[tuple[int, int, int, int], ...]


class _Separable(nn.Sequential):
    """Depthwise and pointwise convolution, normalisation and ReLU, so many times."""

    def __init__(self, channels: int, kernel: int, dilation: int, repeats: int):
        padding = dilation * (kernel // 2)
        layers: list[nn.Module] = []
        for _ in range(repeats):
            depthwise = nn.Conv2d(channels, channels, kernel, 1, padding, dilation, groups=channels, bias=False)
            pointwise = nn.Conv2d(channels, channels, 1, bias=False)
            layers += [depthwise, pointwise, nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(*layers)


class _GlobalPool(nn.Module):
    """The mean over all pixels through a 1x1 convolution, at every pixel."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = _convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x.mean((2, 3), keepdim=True)).expand_as(x)


class _Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0


def _convolution(in_channels: int, channels: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(in_channels, channels, kernel, 1, padding, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def _dense(kernel: int, dilation: int = 1) -> Callable[[int, int], nn.Module]:
    return lambda channels, repeats: _convolution(channels, channels, kernel, dilation)


def _separable(kernel: int, dilation: int = 1) -> Callable[[int, int], nn.Module]:
    return lambda channels, repeats: _Separable(channels, kernel, dilation, repeats)


OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "conv1x1": _dense(1),
    "conv3x3": _dense(3),
    "sep3x3": _separable(3),
    "sep5x5": _separable(5),
    "gap": lambda channels, repeats: _GlobalPool(channels),
    "conv3x3_dil3": _dense(3, 3),
    "conv3x3_dil12": _dense(3, 12),
    "sep3x3_dil3": _separable(3, 3),
    "sep5x5_dil6": _separable(5, 6),
    "skip": lambda channels, repeats: nn.Identity(),
    "none": lambda channels, repeats: _Zero(),
}
"""From channels and repeats (of separable convolutions) to a module that keeps the shape; in the paper's order."""


class ContextualCell(nn.Module):
    """A cell: the sum of the first operation and of the layers' sums, but for those that a later layer reads.

    Args:
        cell: what it does.
        channels: of input and output.
        repeats: of separable convolutions.
    """

    def __init__(self, cell: Cell, channels: int, repeats: int):
        super().__init__()
        builders = list(OPERATIONS.values())
        self.first = builders[cell.first](channels, repeats)
        self.layers = nn.ModuleList(
            nn.ModuleList([builders[one](channels, repeats), builders[other](channels, repeats)])
            for *_, one, other in cell.layers
        )
        self.reads = tuple((one, other) for one, other, *_ in cell.layers)
        read = {position for pair in self.reads for position in pair}
        sums = (1, *(4 + 3 * layer for layer in range(len(cell.layers))))
        self.collected = tuple(position for position in sums if position not in read)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to the same shape."""
        pool = [x, self.first(x)]
        for (one, other), operations in zip(self.reads, self.layers, strict=True):
            first, second = operations[0](pool[one]), operations[1](pool[other])  # type: ignore[index]
            pool += [first, second, first + second]
        total = pool[self.collected[0]]
        for position in self.collected[1:]:
            total = total + pool[position]
        return total


class MergeBlock(nn.Module):
    """Two maps, each through a cell and a 1x1 convolution of its own, added at the larger one's size."""

    def __init__(self, cell: Callable[[], nn.Module], channels: int):
        super().__init__()
        self.cells = nn.ModuleList([cell(), cell()])
        self.convolutions = nn.ModuleList([_convolution(channels, channels), _convolution(channels, channels)])

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """``[batch, channels, ...]`` each."""
        maps = [
            convolution(cell(x))
            for x, cell, convolution in zip((one, other), self.cells, self.convolutions, strict=True)
        ]
        first, second = _at_largest(maps)
        return first + second


class FastDenseDecoder(nn.Module):
    """Feature maps to a map of logits.

    Every map is brought to as many channels. Each of three blocks merges two maps: of the encoder, or of earlier
    blocks. What no block reads of the blocks is put side by side for the classifier; what none reads of the encoder
    is dropped.

    Args:
        channels: of the encoder's maps.
        connections: what each block reads; the encoder's maps are 0 to 3, then come the blocks.
        cell: that of all blocks.
        width: channels of all maps in the decoder; 48 in the paper's search, 64 in its final networks.
        repeats: of separable convolutions; 1 in the paper's search, 2 in its final networks.
        outputs: channels of the result: classes, or 1 for depth.
        auxiliary: whether each block has a classifier of its own, for training: one more copy of the cell before it.
    """

    def __init__(
        self,
        channels: Sequence[int],
        connections: Sequence[tuple[int, int]],
        cell: Cell,
        width: int,
        repeats: int,
        outputs: int,
        auxiliary: bool,
    ):
        super().__init__()
        make = partial(ContextualCell, cell, width, repeats)
        self.connections = tuple(connections)
        self.adapters = nn.ModuleList(_convolution(each, width) for each in channels)
        self.blocks = nn.ModuleList(MergeBlock(make, width) for _ in connections)
        read = {position for pair in connections for position in pair}
        first = len(self.adapters)
        self.collected = tuple(first + k for k in range(len(connections)) if first + k not in read)
        self.merge = _convolution(width * len(self.collected), width)
        self.classifier = nn.Conv2d(width, outputs, 3, padding=1)
        self.heads = nn.ModuleList(
            nn.Sequential(make(), nn.Conv2d(width, outputs, 3, padding=1)) for _ in connections if auxiliary
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of the encoder to logits ``[batch, outputs, ...]`` at the size of the largest map that is read."""
        return self.classify(self.pool(features))

    def with_auxiliary(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, and the logits of each block's own classifier; none where there are none."""
        pool = self.pool(features)
        blocks = pool[len(self.adapters) :]
        return self.classify(pool), [head(block) for head, block in zip(self.heads, blocks, strict=False)]

    def pool(self, features: Sequence[Tensor]) -> list[Tensor]:
        """All maps that there are to read, the encoder's first."""
        pool = [adapter(each) for adapter, each in zip(self.adapters, features, strict=True)]
        for (one, other), block in zip(self.connections, self.blocks, strict=True):
            pool.append(block(pool[one], pool[other]))
        return pool

    def classify(self, pool: Sequence[Tensor]) -> Tensor:
        """The logits of what no block reads."""
        maps = _at_largest([pool[position] for position in self.collected])
        return self.classifier(self.merge(functional.relu(torch.cat(maps, 1))))


class EncoderDecoder(nn.Module):
    """An encoder and what makes a map of logits out of its feature maps.

    Args:
        encoder: images to a tuple of feature maps; says their ``channels`` and ``strides``.
        decoder: those to logits.
        num_classes: of the logits, 0 where they are one value a pixel.
    """

    def __init__(self, encoder: nn.Module, decoder: FastDenseDecoder, num_classes: int):
        super().__init__()
        self.encoder, self.decoder, self.num_classes = encoder, decoder, num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[batch, channels, height, width]`` to logits ``[batch, outputs, height / s, width / s]``.

        ``s`` is the stride of the finest map that the decoder reads.
        """
        return self.decoder(self.encoder(images))


def _at_largest(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps at the size of the largest of them, by bilinear interpolation."""
    size = max(tuple(each.shape[-2:]) for each in maps)
    return [
        each
        if tuple(each.shape[-2:]) == size
        else functional.interpolate(each, size=size, mode="bilinear", align_corners=False)
        for each in maps
    ]
