"""What shared weights learn, and what architectures are ranked by: one class a kind of task, plain torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

from torch import Tensor, nn

from lightning_modules.objectives.depth import LeastSquaresSSILoss, TrimmedSSILoss


class Objective(ABC):
    """The loss that weights are trained by, and the score that architectures are ranked by."""

    score_name: str

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The mean loss of a batch: a scalar to be minimised."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Any) -> Tensor:
        """What a batch's images score on average: a scalar, higher is better."""


class ClassificationObjective(Objective):
    """Cross-entropy to learn by, accuracy in % to rank by."""

    score_name = "accuracy (%)"

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Cross-entropy of logits ``[batch, classes]`` and labels int64 ``[batch]``."""
        return nn.functional.cross_entropy(outputs, targets)

    def score(self, outputs: Tensor, targets: Any) -> Tensor:
        """Top-1 accuracy in %."""
        return 100.0 * (outputs.argmax(1) == targets).float().mean()


class DepthObjective(Objective):
    """A scale- and shift-invariant loss to learn by, its negative to rank by.

    Args:
        kind: ``trimmed``, MiDaS' trimmed loss with its gradient term, or ``least_squares``.
    """

    score_name = "negative scale- and shift-invariant loss"

    def __init__(self, kind: Literal["trimmed", "least_squares"] = "trimmed"):
        self._loss = TrimmedSSILoss() if kind == "trimmed" else LeastSquaresSSILoss()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The loss of inverse depth ``[batch, 1, height, width]`` and (inverse depth, mask) of the same shape."""
        return self._loss(outputs, targets)

    def score(self, outputs: Tensor, targets: Any) -> Tensor:
        """Its negative."""
        return -self._loss(outputs, targets)
