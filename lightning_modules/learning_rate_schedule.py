"""How a learning rate changes over a run: warm-up, then steps, a cosine or a polynomial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal


class ScheduleError(ValueError):
    """A schedule does not fit the run, whatever network is trained."""


@dataclass(frozen=True)
class LearningRateSchedule:
    """How the learning rate changes from iteration to iteration.

    Attributes:
        shape: ``steps`` falls at milestones, ``cosine`` and ``poly`` fall to ``minimum`` at the end of the run,
            ``constant`` stays.
        warmup: iterations of a linear rise at the beginning; below 1, a fraction of the run. The shape runs below it.
        warmup_factor: where the rise begins, as a fraction of the learning rate.
        milestones: of ``steps``: epochs; below 1, fractions of the run.
        gamma: of ``steps``: what the learning rate is multiplied by at each milestone.
        power: of ``poly``.
        minimum: of ``cosine`` and ``poly``: the learning rate at the end.

    Raises:
        ValueError: a value is out of range.
    """

    shape: Literal["steps", "cosine", "poly", "constant"] = "steps"
    warmup: float = 0.0
    warmup_factor: float = 0.001
    milestones: Sequence[float] = (8 / 12, 11 / 12)
    gamma: float = 0.1
    power: float = 0.9
    minimum: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in ("steps", "cosine", "poly", "constant"):
            raise ValueError(f"schedule: shape is '{self.shape}', allowed: steps, cosine, poly, constant")
        if self.warmup < 0 or min(self.milestones, default=0) < 0 or self.minimum < 0:
            raise ValueError("schedule: warmup, milestones and minimum cannot be negative")

    def factor(self, learning_rate: float, iterations: int, epochs: int | None) -> Callable[[int], float]:
        """What the learning rate is multiplied by, as a function of the iteration, counted from 0.

        Args:
            learning_rate: the highest one.
            iterations: of the whole run.
            epochs: of the whole run; None where it is counted in iterations.

        Raises:
            ScheduleError: the warm-up is longer than the run, or milestones are epochs and the run has none.
        """
        warmup = round(self.warmup * iterations) if self.warmup < 1 else int(self.warmup)
        if warmup >= iterations and warmup > 0:
            raise ScheduleError(
                f"schedule: a warmup of {warmup} iterations is longer than the run of {iterations}; give fewer, or a "
                "fraction below 1"
            )
        if self.shape == "steps" and not epochs and any(milestone >= 1 for milestone in self.milestones):
            raise ScheduleError("schedule: milestones in epochs need max_epochs; give fractions of the run below 1")
        milestones = [
            round(milestone * iterations / (1 if milestone < 1 else epochs or 1)) for milestone in self.milestones
        ]
        return partial(self._factor, warmup, milestones, self.minimum / learning_rate, iterations)

    def _factor(self, warmup: int, milestones: list[int], floor: float, iterations: int, iteration: int) -> float:
        rise = 1.0
        if iteration < warmup - 1:
            rise = self.warmup_factor + (1 - self.warmup_factor) * iteration / (warmup - 1)
        left = max(0.0, 1 - iteration / iterations)
        if self.shape == "steps":
            return rise * self.gamma ** sum(iteration >= milestone for milestone in milestones)
        if self.shape == "cosine":
            return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (1 - left))))
        if self.shape == "poly":
            return rise * (floor + (1 - floor) * left**self.power)
        return rise
