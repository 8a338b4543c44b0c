"""The layer-wise space of FBNet (Wu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.fbnet import (
    LAYERS,
    OPERATION_NAMES,
    OPERATIONS,
    FBNetNetwork,
    FBNetSuperLayer,
    Shape,
)
from lightning_modules.networks.supernet import Selection, Supernet
from search.evaluation import Architecture
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head

SKIP = OPERATION_NAMES.index("skip")

PUBLISHED: dict[str, tuple[Architecture, int]] = {
    "FBNet-A": ((8, 2, 0, 8, 8, 7, 2, 4, 2, 7, 6, 5, 7, 3, 5, 6, 1, 7, 7, 6, 7, 7), 1504),
    "FBNet-B": ((0, 3, 4, 0, 0, 7, 6, 3, 7, 7, 7, 8, 6, 7, 0, 4, 6, 7, 4, 7, 7, 3), 1984),
    "FBNet-C": ((0, 3, 8, 0, 0, 7, 6, 7, 3, 7, 6, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 3), 1984),
}
"""The published networks by name, each with the channels of its last convolution (mobile-vision's definitions)."""


class FBNet(SearchSpace):
    """Which block each layer of a network for small devices has: 22 decisions of nine choices, 9^22 architectures.

    A block ``k5_e3`` is an inverted residual with a 5x5 depthwise convolution in a middle three times as wide as the
    input; ``_g2`` has its 1x1 convolutions in two groups; ``skip`` leaves the layer out. Channels, layers and strides
    of the seven stages are fixed (FBNet, tables 1 and 2).

    Layers of one stage behind its first have the same shape, and a layer that is left out has no place: architectures
    that differ in where those are skipped build the same network, and `canonical` puts the skips last.

    Args:
        layers: of each stage, at most seven; fewer stages or layers make smaller spaces of the same blocks.

    Raises:
        ValueError: there is no stage, one too many, or one without a layer.
    """

    name = "fbnet"

    def __init__(self, layers: Sequence[int] = LAYERS):
        if not 1 <= len(layers) <= len(LAYERS) or min(layers) < 1:
            raise ValueError(
                f"{self.name}: layers is {list(layers)}, allowed: a number of layers, 1 or more, for each of 1 to "
                f"{len(LAYERS)} stages"
            )
        self.layers = tuple(layers)
        self.decisions = tuple(
            Decision(f"stage {stage} layer {layer}", OPERATION_NAMES)
            for stage, count in enumerate(self.layers, start=1)
            for layer in range(1, count + 1)
        )

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Two stages, three layers."""
        return {"layers": [1, 2]}

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"width_multiplier": 0.25, "head_channels": 16}

    def canonical(self, archs: Tensor) -> Tensor:
        """The skips of each stage behind all its other layers but the first: int64 ``[..., decisions]`` to the same."""
        parts, begin = [], 0
        for count in self.layers:
            first, rest = archs[..., begin : begin + 1], archs[..., begin + 1 : begin + count]
            order = (rest == SKIP).int().argsort(dim=-1, stable=True)
            parts += [first, rest.gather(-1, order)]
            begin += count
        return torch.cat(parts, dim=-1)

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        skeleton: str = "imagenet",
        width_multiplier: float = 1.0,
        head_channels: int = 1984,
    ) -> nn.Module:
        """The network of an architecture, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: of the network, 1000 classes by default.
            skeleton: ``imagenet``, which divides the resolution by 32, or ``cifar``, by 8, as HW-NAS-Bench has it.
            width_multiplier: channels as a share of FBNet's, rounded to even numbers; the last convolution's are not
                changed by it.
            head_channels: of the last convolution: 1504 of FBNet-A, 1984 of FBNet-B and -C.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes]``.
        """
        choices, operations = self.check(architecture), list(OPERATIONS.values())

        def build_layer(number: int, shape: Shape) -> nn.Module:
            return operations[choices[number]](*shape, nn.BatchNorm2d)

        return FBNetNetwork(
            build_layer,
            head.classes_or(1000),
            self.layers,
            skeleton,
            width_multiplier,
            head_channels,
            head.in_channels,
        )

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        skeleton: str = "imagenet",
        width_multiplier: float = 1.0,
        head_channels: int = 1984,
    ) -> Supernet:
        """The network with all nine operations in every layer; arguments as for `build`."""

        def build(selection: Selection) -> nn.Module:
            def build_layer(number: int, shape: Shape) -> nn.Module:
                return FBNetSuperLayer(selection, number, shape, norm)

            return FBNetNetwork(
                build_layer,
                head.classes_or(1000),
                self.layers,
                skeleton,
                width_multiplier,
                head_channels,
                head.in_channels,
                norm,
            )

        return Supernet(build)
