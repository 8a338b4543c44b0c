"""What makes classes of feature maps in DeepLab: atrous spatial pyramid pooling, and the decoder of DeepLabv3+."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.cells import Norm

REDUCED = 48
"""Channels of the map of high resolution in DeepLabv3+'s decoder, beside 256 of all others."""


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """A feature map ``[batch, channels, ...]`` at another height and width, bilinear, corners on corners."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, normalisation, ReLU: "same" padding for odd kernels.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: odd.
        norm: builds the normalisation layer.
        dilation: distance of the pixels that the kernel reads.
        stride: how far the resolution falls.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, norm: Norm, dilation: int = 1, stride: int = 1
    ):
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False),
            norm(out_channels),
            nn.ReLU(),
        )


class PyramidPooling(nn.Module):
    """A map seen at several distances at once (atrous spatial pyramid pooling, DeepLabv3, Chen et al. 2017).

    A 1x1 convolution, a 3x3 one at each rate, and the mean over the picture, side by side; a 1x1 convolution puts them
    together.

    Args:
        in_channels: of the map.
        channels: of each branch and of the output.
        rates: of the 3x3 convolutions: distances of the pixels that they read.
        norm: builds the normalisation layers.
    """

    def __init__(self, in_channels: int, channels: int, rates: Sequence[int], norm: Norm):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                ConvNormReLU(in_channels, channels, 1, norm),
                *(ConvNormReLU(in_channels, channels, 3, norm, rate) for rate in rates),
            ]
        )
        self.picture = ConvNormReLU(in_channels, channels, 1, norm)
        self.together = ConvNormReLU((len(rates) + 2) * channels, channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, channels, height, width]``."""
        x = functional.relu(x)
        picture = self.picture(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.together(torch.cat([*(branch(x) for branch in self.branches), picture], dim=1))


def pyramid_rates(stride: int, count: int) -> list[int]:
    """Rates at a stride: those that reach 96 pixels, and twice and three times as many (DeepLabv3: 12, 24, 36 at 8)."""
    return [k * 96 // stride for k in range(1, count + 1)]


class DeepLabV3Plus(nn.Module):
    """The head of DeepLabv3+ (Chen et al., ECCV 2018) with full convolutions, as Auto-DeepLab's networks have it.

    Args:
        deep: channels of the deepest map.
        fine: channels of the map at stride 4.
        classes: outputs.
        stride: of the deepest map.
        channels: of the convolutions; 256.
        norm: builds the normalisation layers.
    """

    def __init__(self, deep: int, fine: int, classes: int, stride: int, channels: int, norm: Norm):
        super().__init__()
        self.pyramid = PyramidPooling(deep, channels, pyramid_rates(stride, 3), norm)
        reduced = max(1, REDUCED * channels // 256)
        self.reduce = ConvNormReLU(fine, reduced, 1, norm)
        self.refine = nn.Sequential(
            ConvNormReLU(channels + reduced, channels, 3, norm), ConvNormReLU(channels, channels, 3, norm)
        )
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, deep: Tensor, fine: Tensor) -> Tensor:
        """Both maps to logits ``[batch, classes, height, width]`` at the resolution of the fine one."""
        upsampled = resize(self.pyramid(deep), fine.shape[2:])
        return self.classifier(self.refine(torch.cat([upsampled, self.reduce(fine)], dim=1)))


class PyramidClassifier(nn.Module):
    """Pyramid pooling of one rate and a classifier: the head of each level in Auto-DeepLab's search.

    Args:
        deep: channels of the map.
        classes: outputs.
        stride: of the map.
        channels: of the convolutions.
        norm: builds the normalisation layers.
    """

    def __init__(self, deep: int, classes: int, stride: int, channels: int, norm: Norm):
        super().__init__()
        self.pyramid = PyramidPooling(deep, channels, pyramid_rates(stride, 1), norm)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, deep: Tensor, fine: Tensor) -> Tensor:
        """A map to logits ``[batch, classes, height, width]`` of its resolution; the fine one is not looked at."""
        return self.classifier(self.pyramid(deep))
