"""A search, its stages, and what can be heard of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.agents.base import Agent
from search.attributes.base import Attribute
from search.executors.base import Executor
from search.loop.time_budget import TimeBudget
from search.runs.journal import Record
from search.tasks.base import Task


@dataclass(frozen=True)
class Stage:
    """One task of a search.

    Attributes:
        label: the task in words.
        make_task: builds it; called when the stage begins.
        budget: evaluations a trial.
        adapting: whether it is a target task (True) or one to meta-train on (False).
    """

    label: str
    make_task: Callable[[], Task]
    budget: int
    adapting: bool


@dataclass
class Search:
    """One agent on one task, or on a sequence of tasks that it meta-trains on.

    Attributes:
        name: unique within the run, as ``target/agent``.
        agent: the searcher; after `run_search` it has learned from every stage.
        stages: the tasks, in order.
        seed: seed of trial 0's evaluations; trial ``k`` has ``seed + k``.
        batch: architectures asked at once, a trial.
        most_failures: stop when so many evaluations in a row failed: then it is not the architectures' fault.
        saving_share: share of the time that saving the agent's state may take. Steps after the last save are replayed
            on resume, so saving more rarely costs time then, and changes nothing.
        seconds: time that a trial's evaluations may take together, by their `Evaluation.cost_seconds`; None: no limit.
            Trials advance together: one whose time is over is asked on, but what it evaluates then does not count
            (`search.loop.time_budget.within`). The search ends when every trial's time is over, or with the budget.
        executor: where evaluations run; None for this process, one after another.
        alone: makes the agent of one trial by itself, for an executor with several workers: trials then do not wait for
            each other, and ``agent`` learns nothing. Without it they do.
        attributes: by name, what the record of an evaluation keeps of its architecture.
    """

    name: str
    agent: Agent
    stages: Sequence[Stage]
    seed: int
    batch: int = 1
    most_failures: int = 10
    saving_share: float = 0.1
    seconds: float | None = None
    executor: Executor | None = None
    alone: Callable[[int], Agent] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def asynchronous(self) -> bool:
        """Whether what finishes is told at once, and something else asked, while other evaluations go on.

        Otherwise workers evaluate a step's architectures together and wait for the slowest: a batch is told as one, and
        trials with a limit of time advance together.
        """
        alone = self.agent.trials == 1 or (self.alone is not None and self.seconds is None)
        return self.executor is not None and self.batch == 1 and alone

    @property
    def budget(self) -> int:
        """Evaluations a trial, over all stages; with a limit of time, the most there can be."""
        return sum(stage.budget for stage in self.stages)

    @property
    def evaluations(self) -> int:
        """How many evaluations the search takes, all trials together; with a limit of time, the most there can be."""
        return self.agent.trials * self.budget

    def ended(self, records: Sequence[Record]) -> bool:
        """Whether a search with these evaluations has no others to make."""
        time_budget = TimeBudget(self.seconds)
        for record in records:
            time_budget.counts(record)
        return len(records) == self.evaluations or len(time_budget.over) == self.agent.trials


class Listener:
    """What can be heard of a run. Every method may be left as it is."""

    def search_began(self, search: Search, records: Sequence[Record]) -> None:
        """A search begins, or goes on: ``records`` are the evaluations it already has."""

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Evaluations were made and are safe in the journal."""

    def failed(self, name: str, record: Record) -> None:
        """An evaluation has failed; one of a search has been heard of with `evaluated` too.

        Args:
            name: of the search, or of the part of another study.
            record: the evaluation.
        """

    def trained(self, name: str, epochs: int, values: Mapping[str, float], new: bool, trial: int = 0) -> None:
        """Some epochs of a long training are over.

        Args:
            name: of the training.
            epochs: how many.
            values: what there is to say of it.
            new: whether they were made now, or are known from an earlier attempt.
            trial: which of the trainings of this name.
        """

    def training_ended(self, name: str, trial: int, history: Sequence[Mapping[str, float]]) -> None:
        """A long training has ended, and will soon be safe in the journal: what there was to say of each epoch."""

    def search_ended(self, search: Search) -> None:
        """A search has used up its budget, of evaluations or of time."""

    def summarised(self, summary: Mapping[str, Any]) -> None:
        """Every search has ended, and this is what they found: the content of ``summary.json``."""

    def close(self) -> None:
        """The run is over, for good or ill."""
