"""The contract of a predictor: fitted to evaluated architectures, it says what others may give, and how surely."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from search.agents.predictor.encodings import Encoding


@dataclass(frozen=True)
class Examples:
    """What a predictor is fitted to.

    Attributes:
        features: float32 ``[trials, n, columns]``; columns of a group differ by 1 in the mean square between random
            architectures, over all groups of their block.
        targets: float64 ``[trials, n]``, normalised rewards.
        blocks: int64 ``[columns]``: which encoding each column is of.
        groups: int64 ``[columns]``: which columns belong together, numbered over all blocks.
        seeds: one a trial, for whatever is random in fitting.
    """

    features: Tensor
    targets: Tensor
    blocks: Tensor
    groups: Tensor
    seeds: tuple[int, ...]


class Model(ABC):
    """A fitted predictor, one of each trial."""

    def condition(self, examples: Examples) -> None:  # noqa: B027 - most models only change when they are fitted anew
        """Take note of all evaluations there are now, if that is cheap; what was fitted stays.

        Args:
            examples: all of them, with those it was fitted to.
        """

    @abstractmethod
    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What architectures may give.

        Args:
            features: float32 ``[trials, m, columns]``, or ``[1, m, columns]`` for all trials.

        Returns:
            Mean and standard deviation of the normalised reward, float64 ``[trials, m]`` each.
        """


class Predictor(ABC):
    """How to fit a model. It holds settings only, so agents may share it.

    Attributes:
        conditions: whether its models use every evaluation at once (`Model.condition`).
        refit: it is fitted anew after so many evaluations.
    """

    conditions: bool = False
    refit: int = 1

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {}

    @abstractmethod
    def encodings(self) -> list[Encoding]:
        """The encodings that it is given where a recipe names none."""

    @abstractmethod
    def fit(self, examples: Examples) -> Model:
        """A model of each trial: a pure function of the examples, in which no trial looks at another."""
