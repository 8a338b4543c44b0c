"""Multimodal fusion: which features of two networks are fused, layer by layer (MFAS, Perez-Rua et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.networks.fusion import NONLINEARITIES, Fusion, FusionNetwork
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head
from search.spaces.modality import ConvolutionFeatures, Modality

CLASSES = 10
"""Of AV-MNIST."""


class FusionSpace(SearchSpace):
    """Up to four fusion layers, each with a feature of either modality and a nonlinearity.

    The first decision says how many layers there are; decisions of layers that are not there are fixed on their first
    choice, so that every network is one architecture. With 4 x 4 features and two nonlinearities there are 32 + 32^2 +
    32^3 + 32^4 = 1,082,400 of them, the paper's space for NTU RGB+D; with 5 x 3, as for AV-MNIST, 837,930.

    Networks take pairs ``(first, second)``; where they are given one tensor, both modalities' networks read it.

    Args:
        first: features of the first modality; by default five stages, as for AV-MNIST's spectrograms.
        second: of the second one; by default three stages, as for AV-MNIST's images.
        nonlinearities: to choose from: ``relu``, ``sigmoid``, ``leaky_relu``.
        layers: the most that there can be.

    Raises:
        ValueError: there is nothing to choose from, something twice, or an unknown nonlinearity.
    """

    name = "fusion"
    depth_decision = 0

    def __init__(
        self,
        first: Modality | None = None,
        second: Modality | None = None,
        nonlinearities: Sequence[str] = ("relu", "sigmoid"),
        layers: int = 4,
    ):
        self.first = ConvolutionFeatures(stages=5) if first is None else first
        self.second = ConvolutionFeatures(stages=3) if second is None else second
        self.nonlinearities = tuple(nonlinearities)
        known = set(self.nonlinearities) <= set(NONLINEARITIES)
        if not known or not self.nonlinearities or len(set(self.nonlinearities)) < len(self.nonlinearities):
            allowed = ", ".join(NONLINEARITIES)
            raise ValueError(f"fusion: nonlinearities is {list(nonlinearities)}, allowed: different ones of {allowed}")
        if layers < 1:
            raise ValueError(f"fusion: layers is {layers}, at least 1 is needed")
        parts = (("first", self._names(self.first)), ("second", self._names(self.second)))
        self.decisions = (
            Decision("layers", tuple(str(count) for count in range(1, layers + 1))),
            *(
                Decision(f"{kind} {layer}", choices)
                for layer in range(1, layers + 1)
                for kind, choices in (*parts, ("nonlinearity", self.nonlinearities))
            ),
        )
        self.layer_decisions = tuple((at, at + 1, at + 2) for at in range(1, 3 * layers, 3))

    @staticmethod
    def _names(modality: Modality) -> tuple[str, ...]:
        return tuple(str(feature) for feature in range(len(modality.sizes)))

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` for a network of a moment."""
        return {"width": 4}

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Every choice of a layer that is there, the first one of any other; arguments as for every space."""
        valid, place = super().valid_choices(prefix), prefix.shape[-1]
        if place == 0:
            return valid
        first = torch.arange(self.sizes[place], device=prefix.device) == 0
        return valid & ((prefix[..., :1] >= (place - 1) // 3) | first)

    def layers_of(self, architecture: Architecture) -> list[Fusion]:
        """What each fusion layer reads.

        Raises:
            ValueError: not an architecture of this space.
        """
        count, *choices = self.check(architecture)
        return [
            Fusion((choices[at],), (choices[at + 1],), self.nonlinearities[choices[at + 2]])
            for at in range(0, 3 * (count + 1), 3)
        ]

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        width: int = 16,
        dropout: float = 0.5,
        norm: bool = False,
        alphas: bool = False,
    ) -> FusionNetwork:
        """The network of that architecture, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: its classes, and the channels of what networks of modalities read.
            width: units of a fusion layer: 16 in the paper's searches, 128 for the best network found.
            dropout: behind each fusion layer: 0.5 in the paper's searches, 0.4 for the best network found.
            norm: whether fusion layers are normalised over the batch.
            alphas: whether each fusion layer learns how much of either modality it takes.

        Raises:
            ValueError: not an architecture of this space, or an argument is out of range.
        """
        return self.build_fusion(self.layers_of(architecture), head, width, dropout, norm, alphas)

    def build_fusion(
        self, layers: Sequence[Fusion], head: Head = OWN_HEAD, *options: Any, **named: Any
    ) -> FusionNetwork:
        """As `build`, of fusion layers that may read any features, such as all of them at once."""
        first, second = (each.build(head.in_channels) for each in (self.first, self.second))
        return FusionNetwork(first, second, layers, head.classes_or(CLASSES), *options, **named)

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """Features of either modality, the fusion layers that read them, and the classifier."""
        edges, layers = list[Edge](), self.layers_of(architecture)
        for place, layer in enumerate(layers, start=1):
            edges.append(Edge(f"first {layer.first[0]}", f"fusion {place}", layer.nonlinearity))
            edges.append(Edge(f"second {layer.second[0]}", f"fusion {place}", layer.nonlinearity))
            following = f"fusion {place + 1}" if place < len(layers) else "out"
            edges.append(
                Edge(f"fusion {place}", following, "linear" if following == "out" else layers[place].nonlinearity)
            )
        return edges
