"""The search loop: ask -> evaluate -> tell, one durable step after another.

Progress bars, W&B and plots are listeners: the loop tells them what happened and does not know them by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from search.agents.base import Agent
from search.errors import RunError, one_line
from search.executors import evaluate_all
from search.journal import Journal, Record
from search.randomness import derive_seed
from search.spaces.base import Architecture
from search.summary import TimeBudget
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
            (`search.summary.within`). The search ends when every trial's time is over, or with the budget.
    """

    name: str
    agent: Agent
    stages: Sequence[Stage]
    seed: int
    batch: int = 1
    most_failures: int = 10
    saving_share: float = 0.1
    seconds: float | None = None

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

    def trained(self, name: str, epochs: int, values: Mapping[str, float], new: bool) -> None:
        """Some epochs of a long training are over.

        Args:
            name: of the training.
            epochs: how many.
            values: what there is to say of it.
            new: whether they were made now, or are known from an earlier attempt.
        """

    def search_ended(self, search: Search) -> None:
        """A search has used up its budget, of evaluations or of time."""

    def close(self) -> None:
        """The run is over, for good or ill."""


def run_search(search: Search, journal: Journal, listeners: Sequence[Listener] = ()) -> None:
    """Run a search to its end, from wherever the journal says it stands.

    An agent is a pure function of its state and of what it is told. So its state is saved only as often as that takes a
    small part of the time; steps after the last save are replayed on resume with the journal's evaluations.

    Args:
        search: agent and tasks.
        journal: where every evaluation goes; a search found there is resumed bit for bit.
        listeners: who wants to know.

    Raises:
        RunError: too many evaluations in a row failed, or the journal was written by an agent that asks
            otherwise. What was found before stays in the journal.
        CatchmarkError: a task breaks its contract.
    """
    journal.begin(search.name)
    records = list(journal.records(search.name))
    for listener in listeners:
        listener.search_began(search, records)
    failures = _failures_in_a_row(records) % search.most_failures
    _Walk(search, journal, listeners, TimeBudget(search.seconds), failures).to_the_end(records)
    for listener in listeners:
        listener.search_ended(search)


@dataclass
class _Walk:
    """A search under way.

    Attributes:
        time_budget: what is left of each trial's time behind the agent's state.
        failures: evaluations that failed in a row, since the search last stopped for that.
        step: ask-tell rounds behind the agent's state.
        done: evaluations a trial behind the agent's state, over all stages.
    """

    search: Search
    journal: Journal
    listeners: Sequence[Listener]
    time_budget: TimeBudget
    failures: int
    step: int = 0
    done: int = 0
    save_seconds: float = 0.0
    saved_at: float = field(default_factory=time.monotonic)
    clock: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> bool:
        """Whether the search is over: a pure function of the evaluations behind the agent's state."""
        return self.done == self.search.budget or len(self.time_budget.over) == self.search.agent.trials

    def to_the_end(self, records: Sequence[Record]) -> None:
        """Every stage, from where the journal's last state stands; ``records`` are all evaluations in the journal."""
        agent = self.search.agent
        finished, _ = self.journal.progress(self.search.name)
        if (state := self.journal.state(self.search.name)) is not None:
            try:
                agent.load_state_dict(state["agent"])
                self.step, self.done = state["step"], state["done"]
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise self.foreign() from error
        if finished:
            return
        for record in records:
            if record.step < self.step:
                self.time_budget.counts(record)
        begin = 0
        for stage in self.search.stages:
            end = begin + stage.budget
            if self.done < end and not self.finished:
                task = self.make_task(stage)
                if self.done == begin:
                    agent.begin_task(stage.budget, stage.adapting)
                offered = None if stage.adapting else self.offered(task)
                while self.done < end and not self.finished:
                    n, place = min(self.search.batch, end - self.done), self.done - begin
                    self.one_step(stage, task, n, None if offered is None else offered[:, place : place + n])
            begin = end

    def offered(self, task: Task) -> Tensor | None:
        """What a source task offers each trial: int64 ``[trials, n, decisions]``, or None where the agent is asked."""
        trials = [task.offered(self.search.seed + trial) for trial in range(self.search.agent.trials)]
        return torch.stack([each for each in trials if each is not None]) if trials[0] is not None else None

    def one_step(self, stage: Stage, task: Task, n: int, offered: Tensor | None = None) -> None:
        """Ask for ``n`` architectures a trial, evaluate those the journal does not know yet, tell, commit.

        Where the task offers architectures that are paid for, the agent is told of these and not asked.
        """
        agent, name = self.search.agent, self.search.name
        archs = agent.ask(n) if offered is None else offered
        if archs.shape[1] < n:
            raise RunError(f"{name}: '{stage.label}' offers fewer networks than the {stage.budget} of its budget")
        scores = torch.full(archs.shape[:2], torch.nan, dtype=torch.float64)
        known = {(record.slot, record.trial): record for record in self.journal.records(name, self.step)}
        for (slot, trial), record in known.items():
            asked = tuple(archs[trial, slot].tolist()) if slot < n and trial < agent.trials else None
            if (asked, self.seed(stage, slot, trial)) != (record.architecture, record.seed):
                raise self.foreign()
            scores[trial, slot] = record.evaluation.score
            self.time_budget.counts(record)
        unsaved: list[Record] = []
        missing = scores.numel() - len(known)
        for record in self.evaluate(stage, task, archs, known):
            scores[record.trial, record.slot] = record.evaluation.score
            self.time_budget.counts(record)
            unsaved.append(record)
            missing -= 1
            self.failures = self.failures + 1 if record.evaluation.status == "failed" else 0
            gone_wrong = self.failures >= self.search.most_failures
            # What took real work is committed at once; the step's last evaluation waits for the state after it.
            if gone_wrong or (missing and not task.instant):
                self.journal.add(name, unsaved)
                self.announce(unsaved)
                unsaved = []
            if gone_wrong:
                raise RunError(
                    f"{name}: {self.failures} evaluations in a row failed, the last one with: "
                    f"{record.evaluation.reason}"
                )
        agent.tell(archs, scores)
        self.done, self.step = self.done + n, self.step + 1
        self.commit(unsaved, meta_training=not stage.adapting)
        self.announce(unsaved)

    def evaluate(
        self, stage: Stage, task: Task, archs: Tensor, known: dict[tuple[int, int], Record]
    ) -> Iterator[Record]:
        """What a step asked and the journal does not know, slot by slot, the trials of a slot after one another."""
        todo: list[tuple[int, int, Architecture, int]] = []
        choices = archs.tolist()
        for slot in range(archs.shape[1]):
            for trial in range(archs.shape[0]):
                if (slot, trial) not in known:
                    todo.append((slot, trial, tuple(choices[trial][slot]), self.seed(stage, slot, trial)))
        evaluations = evaluate_all(task, [each[2] for each in todo], [each[3] for each in todo])
        for (slot, trial, architecture, seed), evaluation in zip(todo, evaluations, strict=True):
            yield Record(self.step, slot, trial, stage.label, architecture, seed, evaluation)

    def seed(self, stage: Stage, slot: int, trial: int) -> int:
        """The seed of one evaluation of this step."""
        return derive_seed(self.search.seed + trial, stage.label, self.done + slot)

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

    def commit(self, unsaved: list[Record], meta_training: bool) -> None:
        """Store the step's last evaluations, with the agent's state wherever that is cheap or needed later."""
        now = time.monotonic()
        state = None
        # A finished search needs its state no more, unless another search starts from what it learned.
        if (meta_training and self.finished) or (
            not self.finished and now - self.saved_at >= self.save_seconds / self.search.saving_share
        ):
            state = {"agent": self.search.agent.state_dict(), "step": self.step, "done": self.done}
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


def _failures_in_a_row(records: Sequence[Record]) -> int:
    """How many of the last evaluations failed."""
    failures = 0
    for record in reversed(records):
        if record.evaluation.status != "failed":
            break
        failures += 1
    return failures
