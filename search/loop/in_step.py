"""A search under way: what every walk from the first evaluation to the last has in common, and the one in step."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.attributes.base import with_attributes
from search.errors import RunError, one_line
from search.evaluation import Proposal
from search.executors.inline import evaluate_all
from search.loop.time_budget import TimeBudget
from search.randomness import derive_seed
from search.runs.journal import Journal, Record
from search.spaces.base import Architecture
from search.tasks.base import Evaluation, Task

if TYPE_CHECKING:
    from search.loop.search import Listener, Search, Stage


@dataclass
class Walk(ABC):
    """A search under way.

    Attributes:
        time_budget: what is left of each trial's time behind the agent's state.
        failures: evaluations that failed in a row, since the search last stopped for that.
    """

    search: Search
    journal: Journal
    listeners: Sequence[Listener]
    time_budget: TimeBudget
    failures: int
    save_seconds: float = 0.0
    saved_at: float = field(default_factory=time.monotonic)
    clock: float = field(default_factory=time.monotonic)

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether the search is over: a pure function of the evaluations behind the agent's state."""

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

    @abstractmethod
    def before(self, end: int) -> bool:
        """Whether the search has not made ``end`` evaluations a trial yet."""

    @abstractmethod
    def take(self, record: Record) -> None:
        """Take note of an evaluation in the journal, behind the agent's state or not; in order."""

    def to_the_end(self, records: Sequence[Record]) -> None:
        """Every stage, from where the journal's last state stands; ``records`` are all evaluations in the journal."""
        finished, _ = self.journal.progress(self.search.name)
        if (state := self.journal.state(self.search.name)) is not None:
            try:
                self.load_state(state)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise self.foreign() from error
        if finished:
            return
        for record in records:
            self.take(record)
        begin = 0
        for stage in self.search.stages:
            end = begin + stage.budget
            if self.before(end) and not self.finished:
                self.stage(stage, begin, end)
            begin = end

    def offered(self, stage: Stage, task: Task) -> Tensor | None:
        """What a source task offers each trial: int64 ``[trials, n, decisions]``, or None where the agent is asked."""
        if stage.adapting:
            return None
        trials = [task.offered(self.search.seed + trial) for trial in range(self.search.agent.trials)]
        return torch.stack([each for each in trials if each is not None]) if trials[0] is not None else None

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
        state = None
        # A finished search needs its state no more, unless another search starts from what it learned.
        if (meta_training and self.finished) or (
            not self.finished and now - self.saved_at >= self.save_seconds / self.search.saving_share
        ):
            state = self.state()
        self.journal.finish_step(self.search.name, unsaved, state, self.finished, seconds=now - self.clock)
        self.clock = now
        if state is not None:
            self.saved_at = time.monotonic()
            self.save_seconds = self.saved_at - now

    def announce(self, records: list[Record]) -> None:
        """Tell every listener what is now safe in the journal."""
        if records:
            for listener in self.listeners:
                listener.evaluated(self.search, records)
                for record in records:
                    if record.evaluation.status == "failed":
                        listener.failed(self.search.name, record)


@dataclass
class SynchronousWalk(Walk):
    """All trials in step: a batch is asked, evaluated as a whole, and told.

    Attributes:
        step: ask-tell rounds behind the agent's state.
        done: evaluations a trial behind the agent's state, over all stages.
    """

    step: int = 0
    done: int = 0

    @property
    def finished(self) -> bool:
        """Whether the search is over."""
        return self.done == self.search.budget or len(self.time_budget.over) == self.search.agent.trials

    def state(self) -> dict[str, Any]:
        """The agent's state and how far it is."""
        return {"agent": self.search.agent.state_dict(), "step": self.step, "done": self.done}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.search.agent.load_state_dict(state["agent"])
        self.step, self.done = state["step"], state["done"]

    def before(self, end: int) -> bool:
        """Whether fewer evaluations a trial have been told."""
        return self.done < end

    def take(self, record: Record) -> None:
        """Count an evaluation that was told; others are read where their step is walked again."""
        if record.step < self.step:
            self.time_budget.counts(record)

    def stage(self, stage: Stage, begin: int, end: int) -> None:
        """One step after another."""
        task = self.make_task(stage)
        if self.search.executor is not None and not task.instant:
            self.search.executor.begin(task)
        if self.done == begin:
            self.search.agent.begin_task(stage.budget, stage.adapting)
        offered = self.offered(stage, task)
        while self.done < end and not self.finished:
            n, place = min(self.search.batch, end - self.done), self.done - begin
            self.one_step(stage, task, n, None if offered is None else offered[:, place : place + n])

    def one_step(self, stage: Stage, task: Task, n: int, offered: Tensor | None = None) -> None:
        """Ask for ``n`` architectures a trial, evaluate those the journal does not know yet, tell, commit.

        Where the task offers architectures that are paid for, the agent is told of these and not asked.
        """
        agent, name = self.search.agent, self.search.name
        archs = agent.ask(n) if offered is None else offered
        self.check_offered(stage, archs, n)
        scores = torch.full(archs.shape[:2], torch.nan, dtype=torch.float64)
        known = {(record.slot, record.trial): record for record in self.journal.records(name, self.step)}
        evaluations = {place: record.evaluation for place, record in known.items()}
        for (slot, trial), record in known.items():
            asked = tuple(archs[trial, slot].tolist()) if slot < n and trial < agent.trials else None
            if (asked, self.seed(stage, self.done + slot, trial)) != (record.architecture, record.seed):
                raise self.foreign()
            scores[trial, slot] = record.evaluation.score
            self.time_budget.counts(record)
        unsaved: list[Record] = []
        missing = scores.numel() - len(known)
        for record in self.evaluate(stage, task, archs, known):
            scores[record.trial, record.slot] = record.evaluation.score
            evaluations[record.slot, record.trial] = record.evaluation
            unsaved.append(record)
            missing -= 1
            gone_wrong = self.count(record)
            # What took real work is committed at once; the step's last evaluation waits for the state after it.
            if gone_wrong or (missing and not task.instant):
                self.journal.add(name, unsaved)
                self.announce(unsaved)
                unsaved = []
            if gone_wrong:
                raise self.gone_wrong(record)
        if type(agent).observe is Agent.observe:
            agent.tell(archs, scores)
        else:
            proposals = [[Proposal(tuple(arch), 0) for arch in row] for row in archs.tolist()]
            found = [[evaluations[slot, trial] for slot in range(n)] for trial in range(agent.trials)]
            agent.observe(proposals, found, scores)
        self.done, self.step = self.done + n, self.step + 1
        self.commit(unsaved, meta_training=not stage.adapting)
        self.announce(unsaved)

    def evaluate(
        self, stage: Stage, task: Task, archs: Tensor, known: dict[tuple[int, int], Record]
    ) -> Iterator[Record]:
        """What a step asked and the journal does not know; in one process slot by slot, the trials of one in turn."""
        todo: list[tuple[int, int, Architecture, int]] = []
        choices = archs.tolist()
        for slot in range(archs.shape[1]):
            for trial in range(archs.shape[0]):
                if (slot, trial) not in known:
                    seed = self.seed(stage, self.done + slot, trial)
                    todo.append((slot, trial, tuple(choices[trial][slot]), seed))
        for index, evaluation in self.evaluations(task, todo):
            slot, trial, architecture, seed = todo[index]
            evaluation = with_attributes(evaluation, self.search.attributes, architecture)
            yield Record(self.step, slot, trial, stage.label, architecture, seed, evaluation)

    def evaluations(
        self, task: Task, todo: Sequence[tuple[int, int, Architecture, int]]
    ) -> Iterator[tuple[int, Evaluation]]:
        """The evaluation of each, with its place; on an executor in the order in which they finish."""
        executor = self.search.executor
        if executor is None or task.instant:
            yield from enumerate(evaluate_all(task, [each[2] for each in todo], [each[3] for each in todo]))
            return
        for index, (_, _, architecture, seed) in enumerate(todo):
            executor.submit((index, 0), architecture, seed)
        for _ in todo:
            (index, _), evaluation = executor.wait()
            yield index, evaluation
