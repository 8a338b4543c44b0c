"""The contract of a task: a search space and what each of its architectures is worth."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from search.evaluation import LARGEST, Evaluation, Objective, Proposal, read_objectives
from search.spaces.base import SearchSpace


class Task(ABC):
    """A search space with a reward. Two tasks on one space differ in nothing but the reward."""

    space: SearchSpace
    score_name: str = "score"
    """What the score is, with its unit: the axis label of every plot."""
    instant: bool = False
    """True where an evaluation is a look-up: the loop then commits a whole step at once."""
    honours: frozenset[str] = frozenset()
    """What of a proposal beyond the architecture the task can do: ``parent``, ``stop_below``, kinds of fidelity such as
    ``epochs``. A proposal that asks for anything else is refused."""
    keeps_artifact: bool = False
    """True where an evaluation leaves something at `Proposal.leave`, such as trained weights to inherit."""
    objectives: Mapping[str, Objective] = MappingProxyType({})
    """What is wanted, if it is more than the score: values of every evaluation (`value`), each ``max`` or ``min``, each
    perhaps with a hard limit. A task may say them in any way that `read_objectives` takes.

    Agents that climb one number climb the score, with what misses a limit below everything that keeps them all.
    """
    score_metric: str = "score"
    """The name under which the score stands among the objectives."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Read the objectives of a class."""
        super().__init_subclass__(**arguments)
        if "objectives" in vars(cls):
            cls.objectives = MappingProxyType(read_objectives(vars(cls)["objectives"]))

    def __setattr__(self, name: str, value: Any) -> None:
        """Read the objectives of a single task."""
        super().__setattr__(name, read_objectives(value) if name == "objectives" else value)

    def value(self, evaluation: Evaluation, name: str) -> float:
        """What an evaluation is worth by one of the `objectives`; NaN where that was not measured."""
        found = evaluation.score if name == self.score_metric else math.nan
        return evaluation.metrics.get(name, found)

    def violation(self, evaluation: Evaluation) -> float:
        """By how much an evaluation misses hard limits: the sum of the shares of the limits; 0 where it keeps them."""
        limited = ((name, each) for name, each in self.objectives.items() if each.limit is not None)
        return min(sum(each.violation(self.value(evaluation, name)) for name, each in limited), LARGEST)

    trainer: Mapping[str, Any] = MappingProxyType({})
    """Arguments of Lightning's Trainer, as the recipe gives them, where this task itself trains networks."""

    @classmethod
    def toy(cls) -> dict[str, Any] | None:
        """Arguments that make it cheap, besides the space, as a recipe gives them; None where they need a user's files.

        ``catchmark run --tiny`` takes those that have a default, and leaves what a recipe has to say as it is.
        """
        return {}

    @classmethod
    def toy_space(cls) -> SearchSpace | None:
        """The space that contract tests try it on; None where any space will do."""
        return None

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
    def evaluate(self, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
        """One evaluation after another, in order, each as soon as it is there: a pure function of each proposal."""

    def all_scores(self) -> torch.Tensor | None:
        """The score of every architecture of the space, float64 ``[size]``, where it is known; else None.

        NaN of one that misses a hard limit: it is not what is searched for. With it a report can say how far from the
        best a search ended; no agent sees it.
        """
        return None

    def all_objectives(self) -> torch.Tensor | None:
        """The `objectives` of every architecture of the space, where they are known; else None.

        Returns:
            Float64 ``[size, objectives]``, rows in the order of `SearchSpace.enumerate`; NaN where a value was not
            measured.
        """
        return None

    def references(self, seed: int) -> Mapping[str, Evaluation]:
        """What the scores are to be compared with, by name: networks that need no search; reports show them.

        Args:
            seed: decides all that is random about them.
        """
        return {}

    def known_architectures(self) -> torch.Tensor | None:
        """The architectures that it has a score of, where these are not all of the space; else None.

        Returns:
            Int64 ``[n, decisions]``, each network once, or None: any may be asked.
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


class OneByOne(Task):
    """A task that evaluates one proposal at a time."""

    @abstractmethod
    def evaluate_one(self, proposal: Proposal) -> Evaluation:
        """The answer to one proposal, of which it is a pure function."""

    def evaluate(self, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
        """One after another."""
        for proposal in proposals:
            yield self.evaluate_one(proposal)


def keeps_limits(objectives: Mapping[str, Objective], values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which of many architectures keep every hard limit.

    Args:
        objectives: by name.
        values: of each of these that has a limit, ``[n]`` each.

    Returns:
        Bool ``[n]``, or true where there is no limit.
    """
    kept = torch.tensor(True)
    for name, objective in objectives.items():
        if objective.limit is not None:
            value, limit = values[name], objective.limit
            kept = kept & (value <= limit if objective.direction == "min" else value >= limit)
    return kept


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
