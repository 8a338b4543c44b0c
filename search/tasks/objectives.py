"""What is wanted of an architecture: objectives, each with a direction and perhaps a hard limit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.tasks.base import Evaluation


@dataclass(frozen=True)
class Objective:
    """One of them.

    Attributes:
        direction: ``max`` or ``min``.
        limit: the worst value that will do, in the objective's own unit; None where any will.

    Raises:
        ValueError: the direction is neither ``max`` nor ``min``, or the limit is no number.
    """

    direction: str
    limit: float | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be kept."""
        if self.direction not in ("max", "min"):
            raise ValueError(f"the direction of an objective is '{self.direction}', allowed: max, min")
        if self.limit is not None and not math.isfinite(self.limit):
            raise ValueError(f"the limit of an objective is {self.limit}, a finite number is needed")

    def violation(self, value: float) -> float:
        """By how much a value breaks the limit, as a share of it (of 1, where the limit is 0); 0 where it keeps it."""
        if self.limit is None:
            return 0.0
        worse = self.limit - value if self.direction == "max" else value - self.limit
        return math.inf if math.isnan(worse) else max(0.0, worse / (abs(self.limit) or 1.0))


Objectives = Mapping[str, str | Objective]
"""By the name of a metric its direction alone, or an `Objective`."""


NO_OBJECTIVES: Objectives = MappingProxyType({})


def resolved(objectives: Objectives) -> dict[str, Objective]:
    """Every objective as an `Objective`."""
    return {name: each if isinstance(each, Objective) else Objective(each) for name, each in objectives.items()}


def limited(objectives: Objectives) -> dict[str, Objective]:
    """Those that have a limit."""
    return {name: each for name, each in resolved(objectives).items() if each.limit is not None}


def violation(evaluation: Evaluation, objectives: Objectives) -> float:
    """By how much an evaluation breaks limits: the sum over the objectives; infinite where it failed or lacks one."""
    if evaluation.status != "ok":
        return math.inf
    broken = [each.violation(evaluation.metrics.get(name, math.nan)) for name, each in limited(objectives).items()]
    return sum(broken, 0.0)


def feasible_score(evaluation: Evaluation, objectives: Objectives) -> float:
    """The score of an evaluation that keeps every limit; NaN, as of one that failed, where it doesn't."""
    return math.nan if violation(evaluation, objectives) else evaluation.score
