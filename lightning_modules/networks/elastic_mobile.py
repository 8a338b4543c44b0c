"""A network of inverted residuals whose kernels, expansions, depths and widths a path decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_modules.networks.choices.elastic import ElasticConv2d, ElasticLinear
from lightning_modules.networks.choices.elastic_norms import ElasticBatchNorm2d
from lightning_modules.networks.choices.operations import DepthChoice
from lightning_modules.networks.choices.value import Choice, Number


@dataclass(frozen=True)
class MobileStage:
    """A row of inverted residuals.

    Attributes:
        widths: channels, of which one is chosen for all layers of the stage.
        depths: layers, of which one number is chosen.
        stride: of the first layer.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stride: int


class ElasticConvolution(nn.Sequential):
    """A convolution, its normalisation, and an activation.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: of the convolution.
        stride: of the same.
        depthwise: whether each channel is convolved alone.
        activation: whether there is one.
    """

    def __init__(
        self,
        in_channels: Number,
        out_channels: Number,
        kernel: Number = 1,
        stride: int = 1,
        depthwise: bool = False,
        activation: bool = True,
    ):
        super().__init__(
            ElasticConv2d(
                in_channels, out_channels, kernel, stride, groups="depthwise" if depthwise else 1, bias=False
            ),
            ElasticBatchNorm2d(out_channels),
            *([nn.Hardswish()] if activation else []),
        )


class ElasticInvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, and a 1x1 one that narrows; the input is added if it can be.

    Args:
        in_channels: of the input.
        out_channels: of the output; the input is added where this is the same choice, at stride 1.
        kernel: of the depthwise convolution.
        expansion: how much wider the middle is than the input.
        stride: of the depthwise convolution.
    """

    def __init__(self, in_channels: Number, out_channels: Number, kernel: Choice, expansion: Choice, stride: int):
        super().__init__()
        middle = in_channels * expansion
        self.widen = ElasticConvolution(in_channels, middle)
        self.depthwise = ElasticConvolution(middle, middle, kernel, stride, depthwise=True)
        self.narrow = ElasticConvolution(middle, out_channels, activation=False)
        self.residual = stride == 1 and in_channels is out_channels

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, height / stride, width / stride]``."""
        y = self.narrow(self.depthwise(self.widen(x)))
        return x + y if self.residual else y


class ElasticMobileNetwork(nn.Module):
    """A stem, stages of inverted residuals, a 1x1 convolution, and a classifier behind the mean over the picture.

    Args:
        stages: one behind the other.
        kernels: of the depthwise convolutions, of which one is chosen for each layer.
        expansions: likewise.
        stem: channels of the first convolution.
        stem_stride: of the same.
        last: channels of the last convolution.
        num_classes: that it tells apart.
        in_channels: of the images.
    """

    def __init__(
        self,
        stages: Sequence[MobileStage],
        kernels: Sequence[int],
        expansions: Sequence[int],
        stem: int,
        stem_stride: int,
        last: int,
        num_classes: int,
        in_channels: int,
    ):
        super().__init__()
        self.stem = ElasticConvolution(in_channels, stem, 3, stem_stride)
        rows: list[nn.Module] = []
        before: Number = stem
        for number, stage in enumerate(stages, start=1):
            width, depth = Choice(stage.widths, f"stage {number} width"), Choice(stage.depths, f"stage {number} depth")
            layers: list[nn.Module] = []
            for place in range(1, max(stage.depths) + 1):
                name = f"stage {number} layer {place}"
                kernel, expansion = Choice(kernels, f"{name} kernel"), Choice(expansions, f"{name} expansion")
                stride = stage.stride if place == 1 else 1
                layers.append(ElasticInvertedResidual(before, width, kernel, expansion, stride))
                before = width
            rows.append(DepthChoice(layers, depth))
        self.stages = nn.Sequential(*rows)
        self.last = ElasticConvolution(before, last)
        self.classifier = ElasticLinear(last, num_classes)
        self.initialise()

    def initialise(self) -> None:
        """Convolutions start with He's normal initialisation over the fan-out, as is usual for mobile networks."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.classifier(self.last(self.stages(self.stem(images))).mean((2, 3)))
