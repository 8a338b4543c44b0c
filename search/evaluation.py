"""What passes between agent, loop, executor, task and journal: a proposal, and the evaluation that answers it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Architecture = tuple[int, ...]
"""One choice index per decision."""
LARGEST = 1e18
"""The largest score, metric or cost: squares of them still fit into the float32 of agents' networks."""


@dataclass(frozen=True)
class Proposal:
    """What an agent asks for.

    Attributes:
        architecture: what to evaluate.
        seed: decides everything random in the evaluation; the loop fills it in.
        fidelity: how much the evaluation may cost, for instance ``{"epochs": 3}``; empty for the task's own.
        parent: the architecture whose weights to inherit, evaluated earlier in the same trial; None for fresh weights.
        stop_below: the score under which training may stop; None for never.
        inherit: where the parent's artifact lies; the loop fills it in for the task.
        leave: where the task may leave an artifact, a file or a folder that it makes; the loop fills it in for a task
            that keeps artifacts (`search.tasks.base.Task.keeps_artifact`).
    """

    architecture: Architecture
    seed: int = 0
    fidelity: Mapping[str, float] = field(default_factory=dict)
    parent: Architecture | None = None
    stop_below: float | None = None
    inherit: str | None = None
    leave: str | None = None

    @property
    def demands(self) -> frozenset[str]:
        """What is asked beyond an architecture's full evaluation: names as in `search.tasks.base.Task.honours`."""
        if self.parent is None and self.stop_below is None and not self.fidelity:
            return frozenset()
        others = {"parent": self.parent, "stop_below": self.stop_below}
        return frozenset(self.fidelity) | {name for name, value in others.items() if value is not None}

    def plain(self) -> dict[str, Any]:
        """The proposal as values that JSON can hold."""
        return {
            "architecture": list(self.architecture),
            "seed": self.seed,
            "fidelity": dict(self.fidelity),
            "parent": None if self.parent is None else list(self.parent),
            "stop_below": self.stop_below,
            "inherit": self.inherit,
            "leave": self.leave,
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Proposal:
        """What `plain` was made of."""
        parent = values["parent"]
        whole = {"architecture": tuple(values["architecture"]), "parent": None if parent is None else tuple(parent)}
        return cls(**{**values, **whole})


@dataclass(frozen=True)
class Objective:
    """What is wanted of one value of an evaluation.

    Attributes:
        direction: ``max`` or ``min``.
        limit: the least (of ``max``) or the most (of ``min``) that is acceptable; None for no hard limit.

    Raises:
        ValueError: there is no such direction, or the limit is no number.
    """

    direction: str
    limit: float | None = None

    def __post_init__(self) -> None:
        """Refuse what nobody can want."""
        if self.direction not in ("max", "min"):
            raise ValueError(f"direction is '{self.direction}', allowed: max, min")
        if self.limit is not None and not (isinstance(self.limit, (int, float)) and math.isfinite(self.limit)):
            raise ValueError(f"limit is {self.limit!r}, a number or null is needed")

    def violation(self, value: float) -> float:
        """By how much a value misses the limit, as a share of it; 0 where it keeps it, `LARGEST` where it is NaN."""
        if self.limit is None or (excess := self.excess(value)) <= 0:
            return 0.0
        return min(excess, LARGEST) if excess == excess else LARGEST

    def excess(self, value: float) -> float:
        """By which share of itself the limit is missed, below 0 where it is kept; there must be one."""
        assert self.limit is not None
        beyond = value - self.limit if self.direction == "min" else self.limit - value
        return beyond / (abs(self.limit) or 1.0)


def read_objectives(given: Mapping[str, Any]) -> dict[str, Objective]:
    """Objectives as a recipe or a task may say them: ``max``, ``{direction: min, limit: 5.0}``, or `Objective`.

    Args:
        given: by the name of a value of every evaluation.

    Raises:
        ValueError: one of them is none; names it.
    """
    objectives = {}
    for name, each in given.items():
        try:
            if isinstance(each, Mapping):
                each = Objective(**each)
            objectives[name] = each if isinstance(each, Objective) else Objective(each)
        except (TypeError, ValueError) as error:
            hint = "" if isinstance(error, ValueError) else "; its keys are direction and limit"
            raise ValueError(f"objectives.{name}: {error}{hint}") from error
    return objectives


@dataclass(frozen=True)
class Evaluation:
    """What evaluating one architecture gave.

    Attributes:
        score: what the agent maximises, `LARGEST` in size at most; NaN where the evaluation failed.
        metrics: everything else worth keeping, by name; NaN where a value was not measured, or is larger than that.
        cost_seconds: what the evaluation cost, in seconds, from 0 on.
        status: ``ok`` or ``failed``.
        reason: why it failed, in one line; of one that did not, which metrics were left out as too large.
        history: of a training, epoch by epoch, what was logged by name; empty where nothing was trained.
        artifact: what the task left, for instance trained weights: for the task the place that the proposal names
            (`Proposal.leave`) or one below it, for everybody else a path below the run's folder. None for nothing.
        attributes: what was known of the architecture before anybody paid for the evaluation, by name.
        violation: by how much hard limits of the task are missed, 0 where they are kept or there are none.
    """

    score: float
    metrics: dict[str, float] = field(default_factory=dict)
    cost_seconds: float = 0.0
    status: str = "ok"
    reason: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    artifact: str | None = None
    attributes: dict[str, float] = field(default_factory=dict)
    violation: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether it succeeded and keeps every hard limit: only then it can be the best of anything."""
        return self.status == "ok" and self.violation == 0

    @classmethod
    def failed(cls, reason: str, cost_seconds: float = 0.0, history: Sequence[dict[str, float]] = ()) -> Evaluation:
        """An evaluation that gave no score; the search records the reason and goes on."""
        return cls(math.nan, {}, cost_seconds, "failed", " ".join(reason.split()), list(history))
