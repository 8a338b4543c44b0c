"""Blocks of networks for small devices: an inverted residual around a depthwise convolution, and a layer left out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm


class ChannelShuffle(nn.Module):
    """Deals the channels out in turn, so that each group of the next convolution sees every group of the last one.

    Args:
        groups: into which the channels are divided.
    """

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to the same shape."""
        # Contiguous parts side by side, whatever the memory's layout: a view would copy where it is channels_last.
        return torch.stack(x.chunk(self.groups, dim=1), dim=2).flatten(1, 2)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, and a 1x1 one that narrows and has no activation behind it.

    Normalisation follows each of them. The input is added where the shapes agree. Where nothing is widened the first
    convolution is left out, as in FBNet's published networks (mobile-vision; 1x1 convolutions that keep the width
    would make them larger than they say). Of several groups both 1x1 convolutions are grouped, with a shuffle of
    channels behind the first one, which stays where that is left out (FBNet, sec. 3.1).

    Args:
        in_channels: a multiple of ``groups``.
        out_channels: likewise.
        stride: of the depthwise convolution.
        kernel: of the same; odd.
        expansion: how much wider the middle is than the input.
        groups: of the 1x1 convolutions.
        norm: builds the normalisation layers.
        activation: builds what follows the first two.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        kernel: int,
        expansion: int,
        groups: int = 1,
        norm: Norm = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()
        middle = in_channels * expansion
        self.widen: nn.Module = nn.Identity()
        if expansion > 1:
            self.widen = nn.Sequential(
                nn.Conv2d(in_channels, middle, 1, groups=groups, bias=False), norm(middle), activation()
            )
        self.shuffle = ChannelShuffle(groups) if groups > 1 else nn.Identity()
        self.depthwise = nn.Sequential(
            nn.Conv2d(middle, middle, kernel, stride, kernel // 2, groups=middle, bias=False),
            norm(middle),
            activation(),
        )
        self.narrow = nn.Sequential(nn.Conv2d(middle, out_channels, 1, groups=groups, bias=False), norm(out_channels))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, height / stride, width / stride]``."""
        y = self.narrow(self.depthwise(self.shuffle(self.widen(x))))
        return x + y if self.residual else y


def skip(in_channels: int, out_channels: int, stride: int, norm: Norm = nn.BatchNorm2d) -> nn.Module:
    """A layer that is left out; where the shape changes, a 1x1 convolution with normalisation and ReLU.

    FBNet does not say what is in the place of a layer that changes the shape: this is HW-NAS-Bench's.
    """
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(out_channels), nn.ReLU())
