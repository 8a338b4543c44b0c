"""FBNet's network, of one architecture and of all at once (Wu et al., CVPR 2019)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.mobile_blocks import InvertedResidual, skip
from lightning_modules.networks.side_by_side import branches
from lightning_modules.networks.supernet import PathModule, Selection


def _block(kernel: int, expansion: int, groups: int = 1) -> Callable[[int, int, int, Norm], nn.Module]:
    def build(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
        return InvertedResidual(in_channels, out_channels, stride, kernel, expansion, groups, norm)

    return build


OPERATIONS: dict[str, Callable[[int, int, int, Norm], nn.Module]] = {
    "k3_e1": _block(3, 1),
    "k3_e1_g2": _block(3, 1, groups=2),
    "k3_e3": _block(3, 3),
    "k3_e6": _block(3, 6),
    "k5_e1": _block(5, 1),
    "k5_e1_g2": _block(5, 1, groups=2),
    "k5_e3": _block(5, 3),
    "k5_e6": _block(5, 6),
    "skip": skip,
}
"""Operation name to its constructor of (channels of the input, of the output, stride, norm).

The order is that of the latency table that ships (FBNet, table 2).
"""
OPERATION_NAMES = tuple(OPERATIONS)

STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
"""Channels, layers and stride of each stage; the stride is that of its first layer (FBNet, table 1)."""
LAYERS = tuple(layers for _, layers, _ in STAGES)
STEM = 16
"""Channels of the first convolution."""
STRIDES = {"imagenet": (2, *(stride for _, _, stride in STAGES)), "cifar": (1, 1, 1, 2, 2, 1, 2, 1)}
"""Strides of the stem and of the stages, for each skeleton; that for CIFAR is HW-NAS-Bench's."""


class Shape(NamedTuple):
    """What a layer makes of its input's shape."""

    in_channels: int
    out_channels: int
    stride: int


def shapes_of(layers: Sequence[int], skeleton: str, width: float) -> tuple[int, list[Shape]]:
    """Channels of the stem, and the shapes of all layers.

    Args:
        layers: of each stage.
        skeleton: one of `STRIDES`.
        width: of every stage, as a share of FBNet's; rounded to even channels, because some convolutions have two
            groups.
    """
    last = stem = _scaled(STEM, width)
    shapes = []
    for (channels, _, _), count, stride in zip(STAGES, layers, STRIDES[skeleton][1:], strict=False):
        for position in range(count):
            shapes.append(Shape(last, _scaled(channels, width), 1 if position else stride))
            last = shapes[-1].out_channels
    return stem, shapes


def _scaled(channels: int, width: float) -> int:
    return max(2, 2 * round(channels * width / 2))


class FBNetNetwork(nn.Module):
    """Stem, layers, a 1x1 convolution, and a classifier behind the mean over the picture.

    Layers keep torch's default initialisation.

    Args:
        build_layer: (number of the layer from 0, its shape) to the layer.
        num_classes: outputs of the classifier.
        layers: of each stage.
        skeleton: one of `STRIDES`.
        width: as in `shapes_of`.
        head_channels: of the last convolution: 1504 of FBNet-A, 1984 of FBNet-B and -C.
        in_channels: of the images.
        norm: builds the normalisation layers outside of the layers.

    Raises:
        ValueError: a number is out of range, or there is no such skeleton.
    """

    def __init__(
        self,
        build_layer: Callable[[int, Shape], nn.Module],
        num_classes: int,
        layers: Sequence[int] = LAYERS,
        skeleton: str = "imagenet",
        width: float = 1.0,
        head_channels: int = 1984,
        in_channels: int = 3,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        if skeleton not in STRIDES:
            raise ValueError(f"skeleton is '{skeleton}', allowed: {', '.join(STRIDES)}")
        if width <= 0:
            raise ValueError(f"width_multiplier is {width}, it must be above 0; 1 is FBNet")
        if head_channels < 1:
            raise ValueError(f"head_channels is {head_channels}, at least 1 is needed; 1984 is FBNet-B's and -C's")
        stem, shapes = shapes_of(layers, skeleton, width)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem, 3, STRIDES[skeleton][0], 1, bias=False), norm(stem), nn.ReLU()
        )
        self.layers = nn.ModuleList(build_layer(number, shape) for number, shape in enumerate(shapes))
        self.last = nn.Sequential(
            nn.Conv2d(shapes[-1].out_channels, head_channels, 1, bias=False), norm(head_channels), nn.ReLU()
        )
        self.classifier = nn.Linear(head_channels, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to the last feature map, ``[batch, head_channels, ...]``.

        Its resolution is a 32nd of the images' on the skeleton for ImageNet, an eighth on that for CIFAR.
        """
        x = self.stem(images)
        for layer in self.layers:
            x = layer(x)
        return self.last(x)

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))


class FBNetSuperLayer(PathModule):
    """A layer with every operation.

    Args:
        selection: of its supernet.
        decision: the layer's number.
        shape: of the layer.
        norm: builds the normalisation layers.
    """

    def __init__(self, selection: Selection, decision: int, shape: Shape, norm: Norm = nn.BatchNorm2d):
        super().__init__(selection)
        self.decision = decision
        self.operations = nn.ModuleList(build(*shape, norm) for build in OPERATIONS.values())

    def forward(self, x: Tensor) -> Tensor:
        """The chosen operation, or the sum of all by their weights (FBNet, sec. 3.3)."""
        path = self.selection.path
        weights = None if path.weights is None else path.weights[self.decision]
        if path.choices is not None:
            choice = path.choices[self.decision]
            output = self.operations[choice](x)
            return output if weights is None else output * weights[choice]
        assert weights is not None
        active = range(len(self.operations)) if path.active is None else path.active[self.decision]
        return self._weighted(x, weights, active)

    def _weighted(self, x: Tensor, weights: Tensor, active: Sequence[int]) -> Tensor:
        """The sum of some operations by their weights; convolutions of the same kind run as one."""
        blocks = {k: each for k in active if isinstance(each := self.operations[k], InvertedResidual)}
        terms = [self.operations[k](x) * weights[k] for k in active if k not in blocks]
        outputs = branches(list(blocks.values()), x) if blocks else []
        terms += [output * weights[k] for k, output in zip(blocks, outputs, strict=True)]
        if any(block.residual for block in blocks.values()):
            terms.append(x * sum(weights[k] for k in blocks))
        return functools.reduce(torch.add, terms)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The chosen operation's tensors."""
        return dict(self.operations[choices[self.decision]].state_dict())
