"""The networks of CAS (customizable architecture search, Zhang et al., CVPR 2019), as far as they are known.

The body of the paper is not at hand: operations, numbers of cells and the head are assumed, as said where they stand.
Cells are those of DARTS with other operations (`lightning_modules.networks.darts_cells`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.cells import FactorizedReduce, Norm, ReLUConvNorm
from lightning_modules.networks.darts_cells import NODES, Block, DilatedConvolution, Operations, SeparableConvolution
from lightning_modules.networks.deeplab_head import ConvNormReLU, resize

STAGES = 4
"""Normal cells stand at strides 4, 8, 16 and 32 (assumed), with a reduction cell between two stages."""


class PictureMean(nn.Module):
    """The mean over the picture, ReLU, a 1x1 convolution and normalisation, at every pixel of the map.

    Args:
        channels: of input and output.
        norm: builds the normalisation layer.
    """

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to the same shape."""
        mean = functional.relu(x.mean(dim=(2, 3), keepdim=True))
        return self.norm(self.convolution(mean)).expand(-1, -1, *x.shape[2:])


def _identity(channels: int, stride: int, norm: Norm) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, stride, norm)


def _dilated(rate: int, channels: int, stride: int, norm: Norm) -> nn.Module:
    return DilatedConvolution(channels, 3, stride, norm, rate)


BACKBONE_OPERATIONS: Operations = {
    "identity": _identity,
    "max_pool_3x3": lambda channels, stride, norm: nn.MaxPool2d(3, stride, padding=1),
    "conv_3x3": lambda channels, stride, norm: ReLUConvNorm(channels, channels, 3, stride, norm),
    "sep_conv_3x3": lambda channels, stride, norm: SeparableConvolution(channels, 3, stride, norm),
    "sep_conv_5x5": lambda channels, stride, norm: SeparableConvolution(channels, 5, stride, norm),
    "dil_conv_3x3_2": partial(_dilated, 2),
    "dil_conv_3x3_4": partial(_dilated, 4),
}
"""Of normal and reduction cells (assumed): the last two are separable, over pixels 2 and 4 apart."""

SCALE_OPERATIONS: Operations = {
    "identity": _identity,
    "conv_1x1": lambda channels, stride, norm: ReLUConvNorm(channels, channels, 1, stride, norm),
    "dil_conv_3x3_1": partial(_dilated, 1),
    "dil_conv_3x3_2": partial(_dilated, 2),
    "dil_conv_3x3_4": partial(_dilated, 4),
    "dil_conv_3x3_8": partial(_dilated, 8),
    "picture_mean": lambda channels, stride, norm: PictureMean(channels, norm),
}
"""Of the multi-scale cell (assumed, after atrous spatial pyramid pooling)."""


class CASNetwork(nn.Module):
    """Stem, cells from stride 4 to 32, perhaps a multi-scale cell, and a head with a skip from stride 8 (all assumed).

    Args:
        build_cell: (channels, whether it is a reduction cell) to a cell: two maps to the list of its nodes.
        build_scales: channels to the multi-scale cell; None for none.
        classes: outputs.
        channels: of a node at stride 4; each reduction cell doubles them.
        cells: normal cells of each stage.
        stages: with a reduction cell between two; 4 end at stride 32, 2 at stride 8.
        head_channels: of the head, and of a node of the multi-scale cell a quarter of them.
        in_channels: of the images.
        norm: builds the normalisation layers outside the cells.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        build_cell: Callable[[int, bool], nn.Module],
        build_scales: Callable[[int], nn.Module] | None,
        classes: int,
        channels: int,
        cells: int,
        stages: int,
        head_channels: int,
        in_channels: int,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        if channels < 2 or cells < 1 or not 2 <= stages <= STAGES or head_channels < 4:
            raise ValueError(
                f"channels is {channels} (at least 2), cells {cells} (at least 1), stages {stages} (2 to {STAGES}) and "
                f"head_channels {head_channels} (at least 4)"
            )
        self.stem = nn.Sequential(
            ConvNormReLU(in_channels, channels, 3, norm, stride=2),
            ConvNormReLU(channels, channels, 3, norm),
            nn.Conv2d(channels, channels, 3, 2, 1, bias=False),
            norm(channels),
        )
        before_last = last = channels
        self.blocks, halve = nn.ModuleList(), False
        fine = 2 * channels  # of a node at stride 8
        for stage in range(stages):
            for reduction in ([True] if stage else []) + [False] * cells:
                channels *= 2 if reduction else 1
                self.blocks.append(Block(build_cell(channels, reduction), before_last, last, channels, halve, norm))
                before_last, last, halve = last, NODES * channels, reduction
        self.fine = 2 * cells  # the last block at stride 8
        width = max(1, head_channels // NODES)
        self.scales = None
        if build_scales is not None:
            self.scales = Block(build_scales(width), before_last, last, width, halve, norm)
            last = NODES * width
        self.deep = nn.Sequential(nn.ReLU(), ConvNormReLU(last, head_channels, 1, norm))
        self.skip = nn.Sequential(nn.ReLU(), ConvNormReLU(NODES * fine, width, 1, norm))
        self.classifier = nn.Conv2d(head_channels + width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, classes, height, width]``."""
        before_last = last = fine = self.stem(images)
        for number, block in enumerate(self.blocks):
            before_last, last = last, block(before_last, last)
            if number == self.fine:
                fine = last
        if self.scales is not None:
            last = self.scales(before_last, last)
        deep = resize(self.deep(last), fine.shape[2:])
        return resize(self.classifier(torch.cat([deep, self.skip(fine)], dim=1)), images.shape[2:])
