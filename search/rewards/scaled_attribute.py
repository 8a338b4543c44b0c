"""An attribute as a summand of a reward, on a scale that does not depend on its unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from search.attributes.base import Attribute
from search.attributes.topology import RESNET, Topology
from search.randomness import TrialRandom
from search.rewards.base import RewardTerm, Weighed
from search.spaces.base import SearchSpace
from search.tasks.base import Task

_SCALED_BY = 500


class ScaledAttribute(RewardTerm):
    """``strength`` times an attribute, which is 0 for the least and 1 for the most wanted of 500 random architectures.

    For `RewardTask`'s ``combine: sum``. Terms of one strength weigh equally, whatever they measure.

    Args:
        task: whose score is weighed.
        attribute: what is measured; what is wanted of it is its ``direction``.
        strength: in the unit of the score: 30 where that is an accuracy in %, for .3 of accuracies in [0, 1].

    Raises:
        ValueError: strength is below 0, or all random architectures have the same value.
    """

    instant = True

    def __init__(self, task: Task, attribute: Callable[[SearchSpace], Attribute], strength: float):
        super().__init__(task)
        if not strength >= 0:
            raise ValueError(f"strength is {strength}, at least 0 is needed")
        self.attribute, self.strength = attribute(self.space), strength
        self.name = self.quantity = self.attribute.name
        self.direction = self.attribute.direction
        self._least, self._most = self._range()
        self.described = f"{strength:g} x {self.name}"

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A column of a table that ships."""
        column = {"table": "nasbench201.npz", "column": "flops_m", "direction": "min"}
        return {"attribute": {"class_path": "TableColumn", "init_args": column}, "strength": 30.0}

    def _range(self) -> tuple[float, float]:
        """The least and the largest value that count, of random architectures."""
        values = self.attribute.values(self.space.sample(TrialRandom(0), _SCALED_BY)[0])
        known = values[values.isfinite()]
        if not len(known) or not known.max() > known.min():
            raise ValueError(f"attribute: '{self.name}' does not tell {_SCALED_BY} random architectures apart")
        return float(known.min()), float(known.max())

    def measure(self, archs: Tensor) -> Tensor:
        """The attribute's value."""
        return self.attribute.values(archs)

    def weigh(self, measured: Tensor) -> Tensor:
        """The share of the way from the least to the most wanted value, times the strength."""
        share = (measured - self._least) / (self._most - self._least)
        return self.strength * (share if self.direction == "max" else 1 - share)

    def values(self, archs: Tensor) -> Weighed:
        """All at once: sums, products and quotients round alike in every batch."""
        measured = self.measure(archs)
        return Weighed(measured, self.weigh(measured))


class TopologyReward(ScaledAttribute):
    """IRLAS' reward for being wired as experts are: ``accuracy + lambda * F`` (Guo et al., CVPR 2019).

    Args:
        task: whose score is weighed.
        experts: architectures of the space as its strings.
        strength: lambda, in the unit of the score [assumed: .3 for accuracies in [0, 1], 30 in %].
        gamma: discount of each node [assumed].
        seed: of the random architectures that the function is learned with.
    """

    def __init__(self, task: Task, experts: Sequence[str], strength: float = 30.0, gamma: float = 0.9, seed: int = 0):
        super().__init__(task, lambda space: Topology(space, experts, gamma, seed), strength)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """ResNet's cell."""
        return {"experts": [RESNET]}

    def _range(self) -> tuple[float, float]:
        """The function's own."""
        return 0.0, 1.0
