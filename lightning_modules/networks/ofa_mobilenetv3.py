"""Once-for-all's MobileNetV3, one sub-network of it (Cai et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from lightning_modules.networks.mbconv import ChainNetwork, MBConv, SqueezeExcitation, convolution, rounded

STEM, FIRST, LAST, FEATURES = 16, 16, 960, 1280
STAGES = ((24, 2, False, False), (40, 2, True, False), (80, 2, False, True), (112, 1, True, True), (160, 2, True, True))
"""Channels, stride of the first layer, whether channels are weighed, and whether the activation is hard-swish."""
MOST_LAYERS = 4
"""Of a stage."""


class HardSigmoid(nn.Module):
    """``relu6(x + 3) / 6``, as torch's own, which has no second derivative; proxies such as GraSP take one."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape, to the same."""
        return nn.functional.relu6(x + 3) / 6


def build_ofa_mobilenetv3(
    layers: Sequence[Sequence[tuple[int, int]]],
    num_classes: int,
    width: float = 1.2,
    in_channels: int = 3,
    dropout: float = 0.1,
    last_width: float | None = None,
) -> nn.Module:
    """A network of MobileNetV3's large skeleton.

    Args:
        layers: of each stage, kernel and expansion of each layer.
        num_classes: outputs of the classifier.
        width: channels as a share of MobileNetV3's, rounded to multiples of 8; 1.2 is that of the accuracy predictor.
        in_channels: of the images.
        dropout: before the classifier.
        last_width: the same for what follows the last stage; None for ``width``.
    """
    final = width if last_width is None else last_width

    def weighed(middle: int) -> nn.Module:
        return SqueezeExcitation(middle, rounded(middle / 4), gate=HardSigmoid)

    last, built = rounded(STEM * width), []
    stem = convolution(in_channels, last, 3, 2, activation=nn.Hardswish)
    built.append(MBConv(last, rounded(FIRST * width), 1, 3, 1, shortcut=nn.Identity()))
    last = rounded(FIRST * width)
    for (channels, stride, excite, hard), stage in zip(STAGES, layers, strict=True):
        own = rounded(channels * width)
        for position, (kernel, expansion) in enumerate(stage):
            built.append(
                MBConv(
                    last,
                    own,
                    1 if position else stride,
                    kernel,
                    expansion,
                    weighed if excite else None,
                    nn.Identity(),
                    activation=nn.Hardswish if hard else nn.ReLU,
                )
            )
            last = own
    channels, features = rounded(LAST * final), rounded(FEATURES * final)
    return ChainNetwork(
        stem,
        built,
        convolution(last, channels, 1, activation=partial(nn.Hardswish)),
        channels,
        num_classes,
        dropout,
        nn.Sequential(nn.Conv2d(channels, features, 1, bias=False), nn.Hardswish()),
        features,
    )
