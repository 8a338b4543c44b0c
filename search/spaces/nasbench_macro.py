"""The space of NAS-Bench-Macro (Su et al., CVPR 2021), whose table ships."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.mbconv import ChainNetwork, convolution
from lightning_modules.networks.mobile_blocks import InvertedResidual, skip
from search.evaluation import Architecture
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head

OPERATION_NAMES = ("identity", "mbconv3_k3", "mbconv6_k5")
"""In the order of the table's codes."""
STAGES = ((64, 2), (128, 3), (256, 3))
"""Channels and layers; the first layer of each has stride 2."""
STEM, LAST = 32, 1280


class NASBenchMacro(SearchSpace):
    """Eight layers of three operations, all 6,561 of which were trained on CIFAR-10; 3,969 networks differ.

    A layer that is left out has no place among those of its stage with stride 1: `representative` puts it last.
    Architectures that build the same network stand in the table one by one, each with three trainings of its own.

    Where a layer that changes the shape is left out, a strided 1x1 convolution stands in: with it parameters and FLOPs
    of all rows are the table's. That an activation follows it is assumed.
    """

    name = "nasbench_macro"
    decisions = tuple(
        Decision(f"stage {stage} layer {layer}", OPERATION_NAMES)
        for stage, (_, layers) in enumerate(STAGES, start=1)
        for layer in range(1, layers + 1)
    )

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` for a network of a moment."""
        return {"width_multiplier": 0.125, "head_channels": 16}

    def representative(self, archs: Tensor) -> Tensor:
        """Layers that are left out behind all other layers of their stage but its first: to the same shape."""
        parts, begin = [], 0
        for _, layers in STAGES:
            first, rest = archs[..., begin : begin + 1], archs[..., begin + 1 : begin + layers]
            parts += [first, rest.gather(-1, (rest == 0).int().argsort(dim=-1, stable=True))]
            begin += layers
        return torch.cat(parts, dim=-1)

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        width_multiplier: float = 1.0,
        head_channels: int = LAST,
    ) -> nn.Module:
        """The benchmark's network, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: of the network, 10 classes by default.
            width_multiplier: channels as a share of the benchmark's, at least 2 each.
            head_channels: of the last convolution.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes]``.
        """
        if width_multiplier <= 0 or head_channels < 1:
            raise ValueError("width_multiplier and head_channels must be above 0")
        choices, layers = iter(self.check(architecture)), []
        last = stem = max(2, round(STEM * width_multiplier))
        for channels, count in STAGES:
            own = max(2, round(channels * width_multiplier))
            for position in range(count):
                operation, stride = OPERATION_NAMES[next(choices)], 1 if position else 2
                if operation == "identity":
                    layers.append(skip(last, own, stride, nn.BatchNorm2d))
                else:
                    expansion, kernel = {"mbconv3_k3": (3, 3), "mbconv6_k5": (6, 5)}[operation]
                    layers.append(InvertedResidual(last, own, stride, kernel, expansion))
                last = own
        return ChainNetwork(
            convolution(head.in_channels, stem, 3),
            layers,
            convolution(last, head_channels, 1),
            head_channels,
            head.classes_or(10),
        )
