"""Residual networks whose stages hold any number of blocks and whose channels grow at any block.

How data walks: a stem, then stages of residual blocks. The first block of each stage but the first halves the
resolution; a block may have more channels than the one before it, wherever it stands. Classic ResNets (He et al., CVPR
2016) are the case in which the channels double where the resolution halves. Modules are called what torchvision's
ResNets call theirs, so that weights travel between both.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_modules.spelling import nearest

STEMS = ("imagenet", "small")


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """A projection where the shape changes, else None: the input itself."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        in_channels: of the input.
        width: channels of both convolutions, hence of the output.
        stride: of the first convolution.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = _conv3x3(in_channels, width, stride), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv3x3(width, width), nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, width, height / stride, width / stride]``."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(residual + (x if self.downsample is None else self.downsample(x)))

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation that ends the residual branch."""
        return self.bn2


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 one has the stride, as in torchvision.

    Args:
        in_channels: of the input.
        width: channels of the 3x3 convolution; the output has four times as many.
        stride: of the 3x3 convolution.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv3x3(width, width, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, 4 * width, height / stride, width / stride]``."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(residual)))))
        return self.relu(residual + (x if self.downsample is None else self.downsample(x)))

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation that ends the residual branch."""
        return self.bn3


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basicblock": BasicBlock, "bottleneck": Bottleneck}


class ResidualFeatures(nn.Module):
    """A backbone: images to one feature map a stage.

    Weights start as torchvision's ResNets do: He's normal distribution over the outgoing connections.

    Args:
        block: one of `BLOCKS`.
        widths: for each stage the width of each of its blocks; the stem has as many channels as the first.
        in_channels: of the images.
        stem: ``imagenet``, a 7x7 convolution of stride 2 and a pooling of stride 2, or ``small``, one 3x3 convolution.
        stem_stride: of the small stem, 1 or 2; None for 1. The other stem's is 4.
        zero_init_residual: start every residual branch as zero (Goyal et al., 2017).

    Attributes:
        channels: of each feature map.
        strides: image pixels per pixel of each feature map, on either axis.
        in_channels: of the images.

    Raises:
        ValueError: there is no such block or stem, or a stage has no blocks.
    """

    def __init__(
        self,
        block: str,
        widths: Sequence[Sequence[int]],
        in_channels: int = 3,
        stem: str = "imagenet",
        stem_stride: int | None = None,
        zero_init_residual: bool = False,
    ):
        super().__init__()
        _one_of("block", block, tuple(BLOCKS))
        stride = stem_stride_of(stem, stem_stride)
        if not widths or not all(widths):
            raise ValueError(f"widths are {widths}, every stage needs at least one block")
        make_block = BLOCKS[block]
        channels = widths[0][0]
        self.in_channels = in_channels
        if stem == "imagenet":
            self.conv1: nn.Module = nn.Conv2d(in_channels, channels, 7, 2, padding=3, bias=False)
        else:
            self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn1, self.relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()

        self._stages = tuple(f"layer{number}" for number in range(1, len(widths) + 1))
        self.strides = tuple(stride * 2**stage for stage in range(len(widths)))
        self.channels = tuple(stage[-1] * make_block.expansion for stage in widths)
        for number, (name, stage) in enumerate(zip(self._stages, widths, strict=True)):
            blocks = []
            for position, width in enumerate(stage):
                blocks.append(make_block(channels, width, stride=2 if number and not position else 1))
                channels = width * make_block.expansion
            self.add_module(name, nn.Sequential(*blocks))
        self._initialise(zero_init_residual)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps, the finest first.

        Args:
            images: float32 ``[batch, in_channels, height, width]``, of any size.

        Returns:
            Map ``i`` is ``[batch, channels[i], ceil(height / strides[i]), ceil(width / strides[i])]``.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for name in self._stages:
            x = getattr(self, name)(x)
            maps.append(x)
        return tuple(maps)

    def _initialise(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)


class ResidualNetwork(nn.Module):
    """A classifier: the mean of the backbone's last feature map, and a linear layer.

    Args:
        backbone: a module with ``channels`` that gives feature maps.
        num_classes: outputs; 0 for the mean alone, where another module takes the backbone and adds its own head.

    Raises:
        ValueError: the number of classes is negative.
    """

    def __init__(self, backbone: ResidualFeatures, num_classes: int):
        super().__init__()
        if num_classes < 0:
            raise ValueError(f"num_classes is {num_classes}, 0 (no classifier) or more are allowed")
        self.backbone, self.num_classes = backbone, num_classes
        self.fc = nn.Linear(backbone.channels[-1], num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.fc(self.backbone(images)[-1].mean(dim=(2, 3)))


def _one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} is '{value}', allowed: {', '.join(allowed)}{nearest(value, allowed, '')}")


def stem_stride_of(stem: str, stride: int | None) -> int:
    """How far the stem lowers the resolution.

    Raises:
        ValueError: there is no such stem, or it cannot have that stride.
    """
    _one_of("stem", stem, STEMS)
    if stem == "imagenet":
        if stride not in (None, 4):
            raise ValueError(f"stem_stride is {stride}, the stem 'imagenet' has 4; the stem 'small' takes 1 or 2")
        return 4
    if stride not in (None, 1, 2):
        raise ValueError(f"stem_stride is {stride}, allowed for the stem 'small': 1, 2")
    return stride or 1
