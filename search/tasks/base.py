"""The contract of a task: a search space and what each of its architectures is worth."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from search.spaces.base import Architecture, SearchSpace

LARGEST = 1e18
"""The largest score, metric or cost: squares of them still fit into the float32 of agents' networks."""


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
    """

    score: float
    metrics: dict[str, float] = field(default_factory=dict)
    cost_seconds: float = 0.0
    status: str = "ok"
    reason: str = ""
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def failed(cls, reason: str, cost_seconds: float = 0.0, history: Sequence[dict[str, float]] = ()) -> Evaluation:
        """An evaluation that gave no score; the search records the reason and goes on."""
        return cls(math.nan, {}, cost_seconds, "failed", " ".join(reason.split()), list(history))


class Task(ABC):
    """A search space with a reward. Two tasks on one space differ in nothing but the reward."""

    space: SearchSpace
    score_name: str = "score"
    """What the score is, with its unit: the axis label of every plot."""
    instant: bool = False
    """True where an evaluation is a look-up: the loop then commits a whole step at once."""
    objectives: Mapping[str, str] = MappingProxyType({})
    """What the score weighs against each other, if anything: metrics of every evaluation, each ``max`` or ``min``.

    With two of them a report draws the Pareto front; no agent sees it.
    """

    trainer: Mapping[str, Any] = MappingProxyType({})
    """Arguments of Lightning's Trainer, as the recipe gives them, where this task itself trains networks."""

    @classmethod
    def toy(cls) -> dict[str, Any] | None:
        """Arguments that make it cheap, besides the space, as a recipe gives them; None where they need a user's files.

        ``catchmark run --tiny`` takes those that have a default, and leaves what a recipe has to say as it is.
        """
        return {}

    def parts(self) -> dict[str, Task]:
        """The tasks inside this one, that it asks, by the attribute that holds each and by the recipe's key."""
        return {}

    def with_parts(self, parts: Mapping[str, Task]) -> Task:
        """The same task around other parts."""
        changed = copy.copy(self)
        vars(changed).update(parts)
        return changed

    def open(self) -> None:
        """A run begins: refuse what would fail every evaluation, before the first one is paid for.

        Raises:
            CatchmarkError: something is missing here that no architecture has a part in, such as an accelerator.
        """
        for part in self.parts().values():
            part.open()

    @abstractmethod
    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """The worth of one architecture. Deterministic in (architecture, seed)."""

    def evaluate_many(self, architectures: Sequence[Architecture], seeds: Sequence[int]) -> Iterator[Evaluation]:
        """One evaluation after another, in order, each as soon as it is there."""
        for architecture, seed in zip(architectures, seeds, strict=True):
            yield self.evaluate(architecture, seed)

    def all_scores(self) -> torch.Tensor | None:
        """The score of every architecture of the space, float64 ``[size]``, where it is known; else None.

        With it a report can say how far from the best a search ended; no agent sees it.
        """
        return None

    def all_objectives(self) -> torch.Tensor | None:
        """The `objectives` of every architecture of the space, where they are known; else None.

        Returns:
            Float64 ``[size, objectives]``, rows in the order of `SearchSpace.enumerate`; NaN where a value was not
            measured.
        """
        return None

    def offered(self, seed: int) -> torch.Tensor | None:
        """Architectures that were evaluated before and so cost nothing; None where any may be asked.

        In meta-training the loop tells an agent the first of these, as many as the task's budget, and does not ask it.
        Tasks that weigh the same evaluations differently thus share one bill.

        Args:
            seed: the seed of the trial; the answer is a pure function of it.

        Returns:
            Int64 ``[n, decisions]`` in the order of telling, or None.
        """
        return None


def all_parts(task: Task) -> Iterator[Task]:
    """The task itself, those that it asks, those that these ask, and so on."""
    yield task
    for part in task.parts().values():
        yield from all_parts(part)


class TaskPool(ABC):
    """An endless supply of related tasks to meta-train on."""

    trainer: Mapping[str, Any] = MappingProxyType({})
    """Arguments of Lightning's Trainer, where its tasks train networks."""

    @classmethod
    def toy(cls) -> dict[str, Any] | None:
        """As for `Task`."""
        return {}

    @abstractmethod
    def draw(self, index: int, seed: int) -> Task:
        """The ``index``-th task: a pure function of (index, seed), so that a resumed run draws the same tasks."""

    def describe(self, index: int, seed: int) -> str:
        """One line about the task, for the log and the report."""
        return f"task {index}"

    def source(self, index: int, seed: int) -> str:
        """What an evaluation on the task costs: an architecture is paid for once on all tasks of one source."""
        return self.describe(index, seed)
