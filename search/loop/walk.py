"""A search under way: what every walk from the first evaluation to the last has in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.attributes.together import with_attributes
from search.errors import RunError, one_line
from search.evaluation import Evaluation, Proposal
from search.loop.artifacts import Artifacts
from search.loop.feasible_first import FeasibleFirst
from search.loop.proposing import ask
from search.loop.state_check import StateCheck
from search.loop.time_budget import TimeBudget
from search.randomness import derive_seed
from search.runs.journal import Journal, Record
from search.tasks.base import Task

if TYPE_CHECKING:
    from search.loop.search import Listener, Search, Stage

Asked = list[list[Proposal]]
"""Proposals by trial and slot."""


@dataclass
class Walk(ABC):
    """A search under way.

    Attributes:
        time_budget: what is left of each trial's time behind the agent's state.
        failures: evaluations that failed in a row, since the search last stopped for that.
        artifacts: what evaluations behind the agent's state have left.
        state_check: looks at the first states that are saved.
        feasible_first: makes rewards of evaluations where the present task has hard limits.
    """

    search: Search
    journal: Journal
    listeners: Sequence[Listener]
    time_budget: TimeBudget
    failures: int
    save_seconds: float = 0.0
    saved_at: float = field(default_factory=time.monotonic)
    clock: float = field(default_factory=time.monotonic)
    artifacts: Artifacts = field(init=False)
    state_check: StateCheck | None = None
    feasible_first: FeasibleFirst | None = None

    def __post_init__(self) -> None:
        """Nothing has been left yet."""
        self.artifacts = Artifacts(self.journal.path.parent, self.search.name)

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether the search is over: a pure function of the evaluations behind the agent's state."""

    @property
    def first_agent(self) -> Agent:
        """The agent of the first trial, and perhaps of others."""
        return self.search.agent

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What is needed to go on from here."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state; raises whatever it likes where that is not one."""

    @abstractmethod
    def stage(self, stage: Stage, begin: int, end: int) -> None:
        """Go through one stage, from wherever in it the search stands.

        Args:
            stage: the stage.
            begin: evaluations a trial before it.
            end: evaluations a trial after it.
        """

    @property
    @abstractmethod
    def told(self) -> tuple[int, int]:
        """Of the first trial, steps behind the agent's state and evaluations left."""

    @abstractmethod
    def before(self, end: int) -> bool:
        """Whether the search has not made ``end`` evaluations a trial yet."""

    @abstractmethod
    def take(self, record: Record) -> None:
        """Take note of an evaluation in the journal, behind the agent's state or not; in order."""

    def to_the_end(self, records: Sequence[Record]) -> None:
        """Every stage, from where the journal's last state stands; ``records`` are all evaluations in the journal."""
        finished, _ = self.journal.progress(self.search.name)
        if not finished:
            self.state_check = StateCheck(self.search.name, self.first_agent, self.search.batch)
        if (state := self.journal.state(self.search.name)) is not None:
            try:
                self.load_state(state)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise self.foreign() from error
        if not finished:
            self.go_on(records)
        self.artifacts.tidy(self.journal.records(self.search.name))

    def go_on(self, records: Sequence[Record]) -> None:
        """Every stage that is left."""
        for record in records:
            self.take(record)
        begin = 0
        for stage in self.search.stages:
            end = begin + stage.budget
            if self.before(end) and not self.finished:
                self.stage(stage, begin, end)
            begin = end

    def ask(self, agent: Agent, stage: Stage, n: int, offered: Tensor | None, places: tuple[int, int]) -> Asked:
        """What is evaluated next of an agent's trials: what it asks for, or what the task offers; with seeds.

        Args:
            agent: the agent.
            stage: the stage.
            n: how many proposals a trial.
            offered: int64 ``[trials, n, decisions]``, in place of the agent's; None where it is asked.
            places: the number of the agent's first trial, and of the first proposal in order of asking.
        """
        first, index = places
        if offered is None:
            asked = ask(self.search.name, agent, n, first)
        else:
            self.check_offered(stage, offered, n)
            asked = [[Proposal(tuple(architecture)) for architecture in row] for row in offered.tolist()]
        return [
            [replace(proposal, seed=self.seed(stage, index + slot, trial)) for slot, proposal in enumerate(row)]
            for trial, row in enumerate(asked, first)
        ]

    def offered(self, stage: Stage, task: Task) -> Tensor | None:
        """What a source task offers each trial: int64 ``[trials, n, decisions]``, or None where the agent is asked."""
        if stage.adapting:
            return None
        trials = [task.offered(self.search.seed + trial) for trial in range(self.search.agent.trials)]
        return torch.stack([each for each in trials if each is not None]) if trials[0] is not None else None

    def rank(self, stage: Stage, task: Task, told: Callable[[Record], bool]) -> None:
        """A stage begins: where its task has hard limits, rewards are no longer scores.

        Args:
            stage: the stage.
            task: its task.
            told: whether an evaluation of the journal is behind the agent's state.
        """
        limited = any(each.limit is not None for each in task.objectives.values())
        self.feasible_first = FeasibleFirst() if limited else None
        for record in self.journal.records(self.search.name) if limited else ():
            if record.stage == stage.label and told(record):
                self.reward(record)

    def reward(self, record: Record) -> float:
        """What the agent is told of an evaluation; to be asked of every one in order of telling."""
        if self.feasible_first is None:
            return record.evaluation.score
        return self.feasible_first.reward(record.trial, record.evaluation)

    def settle(self, given: Proposal, evaluation: Evaluation) -> Evaluation:
        """An evaluation as the journal keeps it: with what it left in its place, and its architecture's attributes."""
        settled = self.artifacts.settle(given, evaluation)
        return with_attributes(settled, self.search.attributes, given.architecture)

    def check_offered(self, stage: Stage, archs: Tensor, n: int) -> None:
        """Refuse a task that offers fewer than ``n`` networks where as many are to be told."""
        if archs.shape[1] < n:
            raise RunError(
                f"{self.search.name}: '{stage.label}' offers fewer networks than the {stage.budget} of its budget"
            )

    def seed(self, stage: Stage, index: int, trial: int) -> int:
        """The seed of a trial's evaluation, by its number in order of asking, counted over all stages."""
        return derive_seed(self.search.seed + trial, stage.label, index)

    def make_task(self, stage: Stage) -> Task:
        """A stage's task; what it refuses is said in one line."""
        try:
            return stage.make_task()
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise RunError(f"{self.search.name}: the task '{stage.label}' can't be made: {one_line(error)}") from error

    def foreign(self) -> RunError:
        """What to say where the journal and the agent disagree."""
        return RunError(
            f"{self.journal.path} was written by another version of the agent '{self.search.name}' or of its task, or "
            "on another kind of machine: it can't be resumed here; start the run anew"
        )

    def count(self, record: Record) -> bool:
        """Take account of a new evaluation; whether too many have failed in a row."""
        self.time_budget.counts(record)
        self.failures = self.failures + 1 if record.evaluation.status == "failed" else 0
        return self.failures >= self.search.most_failures

    def gone_wrong(self, record: Record) -> RunError:
        """What to say after too many failures in a row."""
        return RunError(
            f"{self.search.name}: {self.failures} evaluations in a row failed, the last one with: "
            f"{record.evaluation.reason}"
        )

    def commit(self, unsaved: list[Record], meta_training: bool) -> None:
        """Store a step's last evaluations, with the agent's state wherever that is cheap or needed later."""
        now = time.monotonic()
        state, looked = None, 0.0
        # A finished search needs its state no more, unless another search starts from what it learned.
        if (meta_training and self.finished) or (
            not self.finished and now - self.saved_at >= self.save_seconds / self.search.saving_share
        ):
            if self.state_check is not None and unsaved:
                step, left = self.told
                self.state_check.look(self.first_agent, step, unsaved[-1].evaluation, left)
            looked = time.monotonic() - now
            state = self.state()
        self.journal.finish_step(self.search.name, unsaved, state, self.finished, seconds=now - self.clock)
        self.clock = now
        if state is not None:
            self.saved_at = time.monotonic()
            self.save_seconds = self.saved_at - now - looked

    def announce(self, records: list[Record]) -> None:
        """Tell every listener what is now safe in the journal."""
        if records:
            for listener in self.listeners:
                listener.evaluated(self.search, records)
                for record in records:
                    if record.evaluation.status == "failed":
                        listener.failed(self.search.name, record)
