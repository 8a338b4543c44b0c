"""The contract of a term of a reward: what a reward weighs beside a task's score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from search.tasks.base import Task


class Weighed(NamedTuple):
    """What a term says of some architectures.

    Attributes:
        measured: the quantity, float64 ``[n]``; NaN where it is not known.
        values: what the reward makes of it, float64 ``[n]``; NaN where it can't say, which fails the evaluation.
    """

    measured: Tensor
    values: Tensor


class RewardTerm(ABC):
    """A quantity of architectures, and what a reward makes of it.

    A new term is one file: it measures, and it weighs what was measured.

    The value of an architecture never depends on which others it is computed together with: a vectorised power rounds
    by the place in its batch, and a resumed run has other batches. So `values` weighs one after another; a term that
    overrides it, to look values up, has computed those of the whole space at once.

    Args:
        task: whose score is weighed; it has the space, and if it trains, ``build_network(architecture, seed)``.

    Attributes:
        name: of the quantity among an evaluation's metrics, with its unit.
        quantity: the same in words, for instance ``latency``.
        direction: whether the quantity is to be ``max`` or ``min``.
        described: the value, as the score's name shows it.
        instant: whether `values` is a look-up.
    """

    name: str
    quantity: str
    direction: str = "min"
    described: str
    instant: bool = False

    def __init__(self, task: Task):
        self.task, self.space = task, task.space

    @classmethod
    def toy(cls) -> dict[str, Any] | None:
        """Arguments that make it cheap, besides the task, as a recipe gives them; None if it needs a user's files."""
        return {}

    @abstractmethod
    def measure(self, archs: Tensor) -> Tensor:
        """The quantity: int64 ``[n, decisions]`` to float64 ``[n]``, NaN where it is not known."""

    @abstractmethod
    def weigh(self, measured: Tensor) -> Tensor:
        """What the reward makes of it: float64 of any shape to the same shape."""

    def values(self, archs: Tensor) -> Weighed:
        """Quantities of architectures, int64 ``[n, decisions]``, and what the reward makes of them."""
        measured = self.measure(archs)
        return Weighed(measured, torch.stack([self.weigh(each) for each in measured]) if len(archs) else measured)
