"""Mobile inverted bottlenecks with squeeze-and-excitation, and the network around a chain of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.mobile_blocks import InvertedResidual

Activation = Callable[[], nn.Module]


def rounded(channels: float, divisor: int = 8) -> int:
    """Channels to the nearest multiple of 8, at least 8, and never less than nine tenths of them (MobileNet's rule)."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * channels else nearest + divisor


class SqueezeExcitation(nn.Module):
    """Weighs channels by what a small network makes of their means (Hu et al., CVPR 2018).

    Args:
        channels: that are weighed.
        squeezed: channels between its two layers.
        activation: between them.
        gate: at the end.
    """

    def __init__(self, channels: int, squeezed: int, activation: Activation = nn.ReLU, gate: Activation = nn.Sigmoid):
        super().__init__()
        self.weights = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), activation(), nn.Conv2d(squeezed, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to the same shape."""
        return x * self.weights(x.mean((2, 3), keepdim=True))


class MBConv(InvertedResidual):
    """An inverted residual that may weigh its middle's channels and may go without the sum.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the depthwise convolution.
        kernel: of the same; odd.
        expansion: how much wider the middle is than the input.
        excitation: from the middle's channels to the module behind the depthwise convolution; None for none.
        shortcut: what of the input is added where the shapes agree; None for nothing.
        norm: builds the normalisation layers.
        activation: builds what follows the first two convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        kernel: int,
        expansion: int,
        excitation: Callable[[int], nn.Module] | None = None,
        shortcut: nn.Module | None = None,
        norm: Norm = nn.BatchNorm2d,
        activation: Activation = nn.ReLU,
    ):
        super().__init__(in_channels, out_channels, stride, kernel, expansion, 1, norm, activation)
        self.excitation = nn.Identity() if excitation is None else excitation(in_channels * expansion)
        self.residual = self.residual and shortcut is not None
        self.shortcut = shortcut if self.residual else None

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, height / stride, width / stride]``."""
        y = self.narrow(self.excitation(self.depthwise(self.widen(x))))
        return y if self.shortcut is None else self.shortcut(x) + y


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    norm: Norm = nn.BatchNorm2d,
    activation: Activation = nn.ReLU,
) -> nn.Sequential:
    """A convolution, its normalisation and an activation; the picture's sides are divided by the stride, rounded up."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False), norm(out_channels), activation()
    )


class ChainNetwork(nn.Module):
    """A stem, layers one behind the other, and a classifier behind the mean over the picture.

    Convolutions start with He's normal initialisation over the fan-out, and the classifier near zero, as is usual for
    mobile networks: torch's defaults leave deep chains of narrow convolutions slow to start.

    Args:
        stem: reads the images.
        layers: one behind the other.
        last: behind them.
        channels: that ``top`` reads.
        num_classes: outputs of the classifier.
        dropout: share of the classifier's inputs that training leaves out.
        top: between the mean over the picture and the classifier; None for nothing.
        features: that the classifier reads; None for ``channels``.
    """

    def __init__(
        self,
        stem: nn.Module,
        layers: Sequence[nn.Module],
        last: nn.Module,
        channels: int,
        num_classes: int,
        dropout: float = 0.0,
        top: nn.Module | None = None,
        features: int | None = None,
    ):
        super().__init__()
        self.stem, self.layers, self.last = stem, nn.ModuleList(layers), last
        self.top = nn.Identity() if top is None else top
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(features or channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to the last feature map ``[batch, channels, ...]``."""
        x = self.stem(images)
        for layer in self.layers:
            x = layer(x)
        return self.last(x)

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        pooled = self.top(self.features(images).mean((2, 3), keepdim=True))
        return self.classifier(self.dropout(torch.flatten(pooled, 1)))
