"""How much an architecture is wired as experts are (IRLAS; Guo et al., CVPR 2019)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.path_samplers.additive_cost import AdditiveCost
from search.attributes.base import Attribute
from search.evaluation import Architecture
from search.rewards.apprenticeship import MirrorStimuli
from search.spaces.base import SearchSpace
from search.spaces.nasbench201 import NASBench201

RESNET = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
"""ResNet's block as a cell of NAS-Bench-201 (AutoDL-Projects, ``genotypes.py``): the benchmark's row 11,472."""
_CHECKED = 100
_BOUND = 1e-9


@functools.lru_cache(maxsize=8)
def _learned(space: SearchSpace, experts: tuple[Architecture, ...], gamma: float, seed: int) -> MirrorStimuli:
    """One function for all targets of a recipe that differ in its strength alone."""
    return MirrorStimuli(space, experts, gamma, seed)


class Topology(Attribute, AdditiveCost):
    """IRLAS' mirror stimuli function: 1 for what is most like the experts, 0 for what is least, of 500 random ones.

    As a cost of a relaxation it is charged negatively, choice by choice: where each choice adds an amount of its own to
    the function, as on NAS-Bench-201, whose every edge is one decision.

    Args:
        space: of the architectures; one that draws them.
        experts: architectures of the space as its strings.
        gamma: discount of each node [assumed].
        seed: of the random architectures that the function is learned with.

    Raises:
        ValueError: there is no expert, or one is not of the space.
    """

    name = "topology"
    direction = "max"

    def __init__(self, space: SearchSpace, experts: Sequence[str], gamma: float = 0.9, seed: int = 0):
        super().__init__(space)
        self.function = _learned(space, tuple(space.parse(expert) for expert in experts), gamma, seed)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """ResNet's cell."""
        return {"experts": [RESNET]}

    @classmethod
    def toy_space(cls) -> SearchSpace:
        """The one that has that cell."""
        return NASBench201()

    def canonical(self, archs: Tensor) -> Tensor:
        """Each stands for itself: the function sees a drawing, not what its network computes."""
        return archs

    def measure(self, architectures: Sequence[Architecture]) -> list[float]:
        """The function of each."""
        return self.function(architectures).tolist()

    def constant(self) -> float:
        """Minus the function of the architecture of first choices."""
        return -self.measure([(0,) * len(self.space.sizes)])[0]

    def prices(self) -> list[Tensor]:
        """What each choice takes off minus the function, float64 ``[choices]`` for each decision.

        Raises:
            ValueError: choices do not add up, as where one decides what the label of another connects.
        """
        base = (0,) * len(self.space.sizes)
        reference = self.measure([base])[0]
        prices = [
            torch.tensor(
                [reference - self.measure([(*base[:t], choice, *base[t + 1 :])])[0] for choice in range(size)],
                dtype=torch.float64,
            )
            for t, size in enumerate(self.space.sizes)
        ]
        for architecture in self.function.random[:_CHECKED]:
            together = -reference + sum(float(own[choice]) for own, choice in zip(prices, architecture, strict=True))
            if abs(together + self.measure([architecture])[0]) > _BOUND:
                raise ValueError(f"topology is no sum over the choices of the space '{self.space.name}'")
        return prices
