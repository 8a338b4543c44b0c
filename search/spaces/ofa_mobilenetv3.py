"""The MobileNetV3 space of Once-for-all (Cai et al., ICLR 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.ofa_mobilenetv3 import MOST_LAYERS, STAGES, build_ofa_mobilenetv3
from search.evaluation import Architecture
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head

RESOLUTIONS, DEPTHS, KERNELS, EXPANSIONS = (160, 176, 192, 208, 224), (2, 3, 4), (3, 5, 7), (3, 4, 6)
LAYERS = len(STAGES) * MOST_LAYERS
_FIRST = 1 + len(STAGES)
"""Decisions before the first layer's: the resolution, and the depth of each stage."""


class OFAMobileNetV3(SearchSpace):
    """Resolution, layers of five stages, kernel and expansion of each layer: 46 decisions.

    A layer beyond its stage's depth is not there; its kernel and expansion have one valid choice, the first. So 2.2e19
    networks at each of five resolutions differ. The resolution is that of the images, not a part of the network.

    Args:
        repeated: whether one kernel, expansion and depth hold for all layers and stages, as in a space of one cell: 135
            architectures, for comparisons.
    """

    def __init__(self, repeated: bool = False):
        self.name, self.repeated = f"ofa_mobilenetv3{'_repeated' if repeated else ''}", repeated
        resolution = Decision("resolution", tuple(map(str, RESOLUTIONS)))
        kinds = (("depth", DEPTHS), ("kernel", KERNELS), ("expansion", EXPANSIONS))
        depth, kernel, expansion = ((kind, tuple(map(str, values))) for kind, values in kinds)
        if repeated:
            self.decisions = (resolution, *(Decision(*each) for each in (depth, kernel, expansion)))
            return
        self.decisions = (
            resolution,
            *(Decision(f"stage {stage + 1} {depth[0]}", depth[1]) for stage in range(len(STAGES))),
            *(
                Decision(f"stage {layer // MOST_LAYERS + 1} layer {layer % MOST_LAYERS + 1} {kind}", choices)
                for layer in range(LAYERS)
                for kind, choices in (kernel, expansion)
            ),
        )

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """One cell repeated."""
        return {"repeated": True}

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` for a network of a moment."""
        return {"width_multiplier": 0.1}

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Of a layer that is not there the first choice alone."""
        valid, place = super().valid_choices(prefix), prefix.shape[-1]
        if not self.repeated and place >= _FIRST:
            stage, layer = divmod((place - _FIRST) // 2, MOST_LAYERS)
            there = layer < torch.tensor(DEPTHS)[prefix[..., 1 + stage]]
            valid[..., 1:] = there.unsqueeze(-1)
        return valid

    def unrolled(self, archs: Tensor) -> Tensor:
        """The same networks in the space of 46 decisions: int64 ``[..., decisions]`` to ``[..., 46]``."""
        if not self.repeated:
            return archs
        depth = archs[..., 1:2].expand(*archs.shape[:-1], len(STAGES))
        parts = [archs[..., :1], depth]
        for layer in range(LAYERS):
            there = layer % MOST_LAYERS < torch.tensor(DEPTHS)[archs[..., 1:2]]
            parts.append(archs[..., 2:] * there)
        return torch.cat(parts, dim=-1)

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        width_multiplier: float = 1.2,
        last_width: float | None = None,
        dropout: float = 0.1,
    ) -> nn.Module:
        """The network of an architecture, initialised from torch's random state.

        Args:
            architecture: of this space; its resolution changes nothing of the network.
            head: of the network, 1000 classes by default.
            width_multiplier: channels as a share of MobileNetV3's, rounded to multiples of 8.
            last_width: the same for what follows the last stage; None for ``width_multiplier``.
            dropout: before the classifier.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes]``.
        """
        if width_multiplier <= 0:
            raise ValueError(f"width_multiplier is {width_multiplier}, it must be above 0")
        with torch.device("cpu"):  # a network may be built under torch.device("meta")
            _, *rest = self.unrolled(torch.tensor(self.check(architecture))).tolist()
        depths, choices = rest[: len(STAGES)], rest[len(STAGES) :]
        layers = []
        for stage, depth in enumerate(depths):
            first = 2 * stage * MOST_LAYERS
            own = [(choices[first + 2 * k], choices[first + 2 * k + 1]) for k in range(DEPTHS[depth])]
            layers.append([(KERNELS[kernel], EXPANSIONS[expansion]) for kernel, expansion in own])
        return build_ofa_mobilenetv3(
            layers, head.classes_or(1000), width_multiplier, head.in_channels, dropout, last_width
        )
