"""MnasNet's blocks and network (Tan et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.mbconv import ChainNetwork, MBConv, SqueezeExcitation, convolution, rounded

STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels, layers and stride of MobileNetV2's blocks, around which MnasNet searches (MnasNet, sec. 4.1)."""
STEM = 32
"""Channels of the first convolution."""
STRIDES = {"imagenet": (2, 1, 2, 2, 2, 1, 2, 1), "cifar": (1, 1, 1, 2, 2, 1, 2, 1)}
"""Strides of the stem and of the blocks; those for CIFAR divide the resolution by 8 in the place of 32 [assumed]."""
OPERATIONS = ("conv", "dconv", "mbconv3", "mbconv6")
EXPANSIONS = {"mbconv3": 3, "mbconv6": 6}
SQUEEZE = 0.25
"""Channels inside of a squeeze-and-excitation, as a share of the layer's input."""
SHORTCUTS: dict[str, Callable[[], nn.Module] | None] = {
    "pool": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "identity": nn.Identity,
    "none": None,
}
"""What is added to a layer; that pooling is an average over 3x3 is assumed."""


def mnasnet_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the momentum and epsilon of MnasNet's code: .99, in PyTorch's terms .01, and 1e-3."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


@dataclass(frozen=True)
class Block:
    """Layers alike, of which only the first may have a stride.

    Attributes:
        operation: one of `OPERATIONS`.
        kernel: 3 or 5.
        excite: whether layers weigh their channels.
        shortcut: one of `SHORTCUTS`.
        channels: of the output.
        layers: at least 1.
        stride: of the first layer.
    """

    operation: str
    kernel: int
    excite: bool
    shortcut: str
    channels: int
    layers: int
    stride: int


def build_layer(block: Block, in_channels: int, stride: int, norm: Norm) -> nn.Module:
    """A layer of a block.

    ``conv`` is a convolution, ``dconv`` a depthwise and a 1x1 one, which has no activation behind it, as the first
    block of the published networks.
    """
    if block.operation == "conv":
        return convolution(in_channels, block.channels, block.kernel, stride, norm)
    squeezed, shortcut = max(1, int(SQUEEZE * in_channels)), SHORTCUTS[block.shortcut]
    return MBConv(
        in_channels,
        block.channels,
        stride,
        block.kernel,
        EXPANSIONS.get(block.operation, 1),
        partial(SqueezeExcitation, squeezed=squeezed) if block.excite else None,
        None if shortcut is None else shortcut(),
        norm,
    )


def build_mnasnet(
    blocks: Sequence[Block],
    num_classes: int,
    stem: int = STEM,
    stem_stride: int = 2,
    head_channels: int = 1280,
    dropout: float = 0.2,
    in_channels: int = 3,
    norm: Norm = mnasnet_norm,
) -> ChainNetwork:
    """The network of some blocks.

    Args:
        blocks: one behind the other.
        num_classes: outputs of the classifier.
        stem: channels of the first convolution.
        stem_stride: of the same.
        head_channels: of the last convolution.
        dropout: before the classifier.
        in_channels: of the images.
        norm: builds the normalisation layers.
    """
    layers, last = [], stem
    for block in blocks:
        for position in range(block.layers):
            layers.append(build_layer(block, last, 1 if position else block.stride, norm))
            last = block.channels
    return ChainNetwork(
        convolution(in_channels, stem, 3, stem_stride, norm),
        layers,
        convolution(last, head_channels, 1, 1, norm),
        head_channels,
        num_classes,
        dropout,
    )


def scaled(channels: int, width: float) -> int:
    """Channels at a width, a multiple of 8; at width 1 as they are."""
    return channels if width == 1 else rounded(channels * width)
