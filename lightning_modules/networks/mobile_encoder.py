"""Encoders of small networks: the feature maps of MobileNetV2 and of EfficientNet-Lite0 at strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (4, 8, 16, 32)


class Stage(NamedTuple):
    """Inverted residuals of one width.

    Attributes:
        expansion: how much wider the middle of a block is than its input.
        channels: of its output.
        blocks: how many.
        stride: of the first one.
        kernel: of the depthwise convolutions.
    """

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int


class Skeleton(NamedTuple):
    """What tells one encoder from another.

    Attributes:
        stages: behind the stem, a 3x3 convolution of stride 2.
        stem: channels of the stem.
        epsilon: of normalisation.
        same_padding: pad as TensorFlow's ``same`` does: behind the last pixel first.
        always_widens: a block whose middle is as wide as its input has a first 1x1 convolution all the same.
    """

    stages: tuple[Stage, ...]
    stem: int
    epsilon: float = 1e-5
    same_padding: bool = False
    always_widens: bool = False


_MOBILENET_V2 = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 32, 3, 2, 3),
    Stage(6, 64, 4, 2, 3),
    Stage(6, 96, 3, 1, 3),
    Stage(6, 160, 3, 2, 3),
    Stage(6, 320, 1, 1, 3),
)
"""MobileNetV2 (Sandler et al. 2018, table 2) up to its last stage."""

SKELETONS = MappingProxyType(
    {
        # Of FastDenseNAS (DrSleep/nas-segm-pytorch, src/nn/encoders.py): 1,812,800 weights.
        "mobilenet_v2": Skeleton(_MOBILENET_V2, 32, always_widens=True),
        "mobilenet_v2_torchvision": Skeleton(_MOBILENET_V2, 32),
        # EfficientNet-Lite0 (tensorflow/tpu, efficientnet/lite): no squeeze and excitation, ReLU6. That its ports to
        # PyTorch keep TensorFlow's padding and epsilon is assumed.
        "efficientnet_lite0": Skeleton(
            (
                Stage(1, 16, 1, 1, 3),
                Stage(6, 24, 2, 2, 3),
                Stage(6, 40, 2, 2, 5),
                Stage(6, 80, 3, 2, 3),
                Stage(6, 112, 3, 1, 5),
                Stage(6, 192, 4, 2, 5),
                Stage(6, 320, 1, 1, 3),
            ),
            32,
            1e-3,
            True,
        ),
    }
)


class SamePaddedConv2d(nn.Conv2d):
    """A convolution whose input is padded as by TensorFlow: what is odd goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in, height, width]`` to sizes divided by the stride and rounded up."""
        sides = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(x.shape[-2:], self.stride, self.kernel_size, strict=True)
        ]
        padding = [part for side in reversed(sides) for part in (side // 2, side - side // 2)]
        return super().forward(functional.pad(x, padding))


class Block(nn.Module):
    """An inverted residual with ReLU6."""

    def __init__(self, in_channels: int, stage: Stage, channels: int, stride: int, skeleton: Skeleton):
        super().__init__()
        middle = in_channels * stage.expansion
        layers: list[nn.Module] = []
        if stage.expansion > 1 or skeleton.always_widens:
            layers += _convolution(in_channels, middle, 1, 1, 1, skeleton)
        layers += _convolution(middle, middle, stage.kernel, stride, middle, skeleton)
        layers += _convolution(middle, channels, 1, 1, 1, skeleton)[:-1]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, channels, height / stride, width / stride]``."""
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileEncoder(nn.Module):
    """Images to four feature maps: those before the resolution falls again, and the last one.

    Args:
        name: ``mobilenet_v2`` (24, 32, 96 and 320 channels), the same as ``mobilenet_v2_torchvision``, whose first
            block does without a convolution that widens nothing, or ``efficientnet_lite0`` (24, 40, 112 and 320).
        in_channels: of the images.
        width: all channels are multiplied by this and rounded to multiples of 8, at least 8.

    Raises:
        ValueError: there is no such encoder, or the width is out of range.
    """

    def __init__(self, name: str = "mobilenet_v2", in_channels: int = 3, width: float = 1.0):
        super().__init__()
        if name not in SKELETONS:
            raise ValueError(f"encoder is '{name}', allowed: {', '.join(SKELETONS)}")
        if not width > 0:
            raise ValueError(f"encoder_width is {width}, more than 0 is needed")
        skeleton = SKELETONS[name]
        self.in_channels, channels = in_channels, _scaled(skeleton.stem, width)
        self.stem = nn.Sequential(*_convolution(in_channels, channels, 3, 2, 1, skeleton))
        stages, widths = [], []
        for stage in skeleton.stages:
            blocks: list[nn.Module] = []
            for block in range(stage.blocks):
                wider = _scaled(stage.channels, width)
                blocks.append(Block(channels, stage, wider, 1 if block else stage.stride, skeleton))
                channels = wider
            stages.append(nn.Sequential(*blocks))
            widths.append(channels)
        self.stages = nn.ModuleList(stages)
        falls = [number - 1 for number, stage in enumerate(skeleton.stages) if stage.stride == 2 and number > 1]
        self.outputs = (*falls, len(stages) - 1)
        self.channels = tuple(widths[number] for number in self.outputs)
        self.strides = STRIDES

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images ``[batch, in_channels, height, width]`` to maps at strides 4, 8, 16 and 32."""
        x, maps = self.stem(images), []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in self.outputs:
                maps.append(x)
        return tuple(maps)


def take_weights(encoder: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Give an encoder somebody else's weights: tensor by tensor in their order, whatever their names.

    Those behind the encoder's last, such as a classifier's, are left aside. Counts of batches are not needed.

    Args:
        encoder: an encoder that registers its layers in the order in which they run, as `MobileEncoder` does.
        weights: a state dict of the same layers in the same order, such as torchvision's ``mobilenet_v2``.
        source: where they come from, for messages.

    Raises:
        ValueError: they are those of another network.
    """
    wanted = {name: tensor for name, tensor in encoder.state_dict().items() if not _is_count(name)}
    given = [(name, each) for name, each in weights.items() if isinstance(each, Tensor) and not _is_count(name)]
    if len(given) < len(wanted):
        raise ValueError(f"{source} has {len(given)} tensors, the encoder needs {len(wanted)}")
    taken = {}
    for (name, tensor), (theirs, value) in zip(wanted.items(), given, strict=False):
        if tensor.shape != value.shape:
            raise ValueError(
                f"{source} is of another encoder: '{theirs}' is {list(value.shape)}, '{name}' is {list(tensor.shape)}"
            )
        taken[name] = value
    if any(each.is_meta for each in wanted.values()):  # under torch.device("meta"): it is to have no values
        return
    with torch.no_grad():
        encoder.load_state_dict(encoder.state_dict() | taken)


def _is_count(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _scaled(channels: int, width: float) -> int:
    return channels if width == 1 else max(8, int(channels * width + 4) // 8 * 8)


def _convolution(
    in_channels: int, channels: int, kernel: int, stride: int, groups: int, skeleton: Skeleton
) -> Sequence[nn.Module]:
    """Convolution, normalisation and activation."""
    kind = SamePaddedConv2d if skeleton.same_padding else nn.Conv2d
    padding = 0 if skeleton.same_padding else kernel // 2
    return (
        kind(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels, eps=skeleton.epsilon),
        nn.ReLU6(),
    )
