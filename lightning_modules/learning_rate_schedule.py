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
        warmup: iterations of a linear rise at the beginning; below 1, a fraction of the run.
        climb: whether the shape runs ``below`` the rise, as in mmengine, or the rise comes ``before`` it, in equal
            steps from zero, and the shape takes what is left of the run.
        warmup_factor: where a rise with the shape below it begins, as a fraction of the learning rate.
        milestones: of ``steps``: epochs; below 1, fractions of the run.
        every: of ``steps``: so many iterations lie between two falls, and there are no milestones; 0 for milestones.
        gamma: of ``steps``: what the learning rate is multiplied by at each milestone.
        power: of ``poly``.
        minimum: of ``cosine`` and ``poly``: the learning rate at the end.

    Raises:
        ValueError: a value is out of range.
    """

    shape: Literal["steps", "cosine", "poly", "constant"] = "steps"
    warmup: float = 0.0
    climb: Literal["below", "before"] = "below"
    warmup_factor: float = 0.001
    milestones: Sequence[float] = (8 / 12, 11 / 12)
    every: int = 0
    gamma: float = 0.1
    power: float = 0.9
    minimum: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in ("steps", "cosine", "poly", "constant"):
            raise ValueError(f"schedule: shape is '{self.shape}', allowed: steps, cosine, poly, constant")
        if self.climb not in ("below", "before"):
            raise ValueError(f"schedule: climb is '{self.climb}', allowed: below, before")
        if self.warmup < 0 or min(self.milestones, default=0) < 0 or self.every < 0 or self.minimum < 0:
            raise ValueError("schedule: warmup, milestones, every and minimum cannot be negative")

    def factor(self, learning_rate: float, iterations: float, epochs: int | None = None) -> Callable[[int], float]:
        """What the learning rate is multiplied by, as a function of the iteration, counted from 0.

        Args:
            learning_rate: the highest one.
            iterations: of the whole run. Where the learning rate changes only between epochs, they are the epochs.
            epochs: of the whole run; None where it is counted in iterations.

        Raises:
            ScheduleError: the warm-up is longer than the run, or milestones are epochs and the run has none.
        """
        warmup = round(self.warmup * iterations) if 0 < self.warmup < 1 else int(self.warmup)
        if warmup >= iterations and warmup > 0:
            raise ScheduleError(
                f"schedule: a warmup of {warmup} iterations is longer than the run of {iterations}; give fewer, or a "
                "fraction below 1"
            )
        floor = self.minimum / learning_rate if self.minimum else 0.0
        milestones: list[int] = []
        if self.shape == "steps" and not self.every:
            if not epochs and any(milestone >= 1 for milestone in self.milestones):
                raise ScheduleError("schedule: milestones in epochs need max_epochs; give fractions of the run below 1")
            milestones = [round(each * iterations / (1 if each < 1 else epochs or 1)) for each in self.milestones]
        return partial(self._factor, warmup, milestones, floor, iterations)

    def _factor(self, warmup: int, milestones: list[int], floor: float, iterations: float, iteration: int) -> float:
        rise = 1.0
        if self.climb == "before":
            if iteration < warmup:
                return (iteration + 1) / (warmup + 1)
            iteration, iterations = iteration - warmup, iterations - warmup
        elif iteration < warmup - 1:
            rise = self.warmup_factor + (1 - self.warmup_factor) * iteration / (warmup - 1)
        left = max(0.0, 1 - iteration / iterations)
        if self.shape == "steps":
            falls = iteration // self.every if self.every else sum(iteration >= each for each in milestones)
            return rise * self.gamma**falls
        if self.shape == "cosine":
            # Equal but for rounding, which recipes' published numbers depend on.
            fall = half_cosine(iteration, iterations) if self.climb == "before" else half_cosine(1 - left, 1.0)
            return rise * (floor + (1 - floor) * fall)
        if self.shape == "poly":
            return rise * (floor + (1 - floor) * left**self.power)
        return rise


def half_cosine(passed: float, whole: float) -> float:
    """Half a cosine, from 1 where nothing has passed to 0 where the whole has."""
    return 0.5 * (1 + math.cos(math.pi * passed / whole))
