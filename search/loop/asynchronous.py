"""A search whose workers never wait for each other: what finishes is told at once, and something else is asked.

How a walk is recorded, so that it can be replayed: an evaluation's ``step`` is its number in order of telling, within
its trial; its ``slot`` is its place among what the trial had under way when it was told, the longest asked first. An
agent is asked anew after every telling, up to a fixed number under way, so these two numbers say in which order
everything was asked and told. Where one evaluation is under way at a time, every slot is 0 and the records are those of
a search in step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.evaluation import Proposal
from search.executors.base import Executor
from search.executors.inline import InlineExecutor
from search.loop.walk import Walk
from search.runs.journal import Record
from search.tasks.base import Task

if TYPE_CHECKING:
    from search.loop.search import Stage


@dataclass(frozen=True)
class _Flight:
    """What was asked and not told yet.

    Attributes:
        index: its number in order of asking.
        proposal: what was asked.
        inherited: what it inherits, a path below the run's folder.
    """

    index: int
    proposal: Proposal
    inherited: str | None = None

    def plain(self) -> list[Any]:
        """As a state keeps it; runs of earlier versions kept architectures only."""
        if self.proposal.demands:
            return [self.index, self.proposal.plain(), self.inherited]
        return [self.index, list(self.proposal.architecture)]

    @classmethod
    def from_plain(cls, index: int, proposal: Any, inherited: str | None = None) -> _Flight:
        """What `plain` was made of, but perhaps for its seed."""
        if isinstance(proposal, dict):
            return cls(index, Proposal.from_plain(proposal), inherited)
        return cls(index, Proposal(tuple(proposal)))


@dataclass
class _Trial:
    """One trial by itself.

    Attributes:
        number: which trial.
        agent: asked and told for this trial alone.
        told: evaluations behind the agent's state, over all stages.
        flying: what was asked and not told yet, the longest asked first.
        known: evaluations of the journal that are not behind the agent's state, in order of telling.
    """

    number: int
    agent: Agent
    told: int = 0
    flying: list[_Flight] = field(default_factory=list)
    known: deque[Record] = field(default_factory=deque)

    @property
    def asked(self) -> int:
        """Evaluations asked for, over all stages."""
        return self.told + len(self.flying)

    def state(self) -> dict[str, Any]:
        """As a walk in step has it, and what is under way, if anything."""
        state = {"agent": self.agent.state_dict(), "step": self.told, "done": self.told}
        return state | {"flying": [flight.plain() for flight in self.flying]} if self.flying else state

    def load_state(self, state: dict[str, Any]) -> None:
        self.agent.load_state_dict(state["agent"])
        self.told = state["step"]
        self.flying = [_Flight.from_plain(*each) for each in state.get("flying", [])]


@dataclass
class AsynchronousWalk(Walk):
    """Every trial by itself, all on the workers of one executor.

    With at least as many trials as workers a trial has one evaluation under way, and those that are furthest behind
    come first: each trial is then the same search as in one process. Otherwise trials share the workers evenly.

    Attributes:
        trials: each with an agent of its own.
    """

    trials: list[_Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the agents."""
        super().__post_init__()
        agent, alone = self.search.agent, self.search.alone
        if agent.trials == 1:
            self.trials = [_Trial(0, agent)]
        else:
            assert alone is not None
            self.trials = [_Trial(trial, alone(trial)) for trial in range(agent.trials)]

    @property
    def first_agent(self) -> Agent:
        """The agent of the first trial."""
        return self.trials[0].agent

    @property
    def told(self) -> tuple[int, int]:
        """Of the first trial, evaluations behind its agent's state and those left."""
        return self.trials[0].told, self.search.budget - self.trials[0].told

    @property
    def finished(self) -> bool:
        """Whether the search is over."""
        everything = all(trial.told == self.search.budget for trial in self.trials)
        return everything or len(self.time_budget.over) == len(self.trials)

    def state(self) -> dict[str, Any]:
        """Every trial's state."""
        states = [trial.state() for trial in self.trials]
        return states[0] if len(states) == 1 else {"trials": states}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        states = [state] if len(self.trials) == 1 else state["trials"]
        for trial, each in zip(self.trials, states, strict=True):
            trial.load_state(each)

    def before(self, end: int) -> bool:
        """Whether a trial has been told of fewer evaluations."""
        return any(trial.told < end for trial in self.trials)

    def take(self, record: Record) -> None:
        """Count an evaluation that was told; keep others, to be told."""
        trial = self.trials[record.trial] if record.trial < len(self.trials) else None
        if trial is None:
            raise self.foreign()
        if record.step < trial.told:
            self.time_budget.counts(record)
            self.artifacts.remember(record)
        else:
            trial.known.append(record)

    def stage(self, stage: Stage, begin: int, end: int) -> None:
        """Ask, evaluate and tell until every trial has been told of the stage's budget."""
        task = self.make_task(stage)
        # What is known without work does not travel to a worker.
        executor = InlineExecutor() if task.instant or self.search.executor is None else self.search.executor
        course = _Course(stage, task, begin, end, executor, self.offered(stage, task))
        self.rank(stage, task, lambda record: record.step < self.trials[record.trial].told)
        for trial in self.trials:
            trial.flying = [self.seeded(stage, trial, flight) for flight in trial.flying]
        if any([self.replay(course, trial) for trial in self.trials]):
            self.commit([], meta_training=not stage.adapting)
        executor.begin(task)
        for trial in self.trials:
            for flight in trial.flying:
                self.submit(course, trial, flight)
        while not self.finished:
            self.ask_on(course)
            if not any(trial.flying for trial in self.trials):
                return
            self.next_evaluation(course)
        executor.drop()

    def seeded(self, stage: Stage, trial: _Trial, flight: _Flight) -> _Flight:
        """The same with its seed, which a state of an earlier version lacks."""
        return replace(flight, proposal=replace(flight.proposal, seed=self.seed(stage, flight.index, trial.number)))

    def submit(self, course: _Course, trial: _Trial, flight: _Flight) -> None:
        """Let what was asked be evaluated."""
        index, number = flight.index, trial.number
        given = self.artifacts.place(course.task, flight.proposal, number, index, flight.inherited)
        course.given[number, index] = given
        course.executor.submit((number, index), given)

    def limit(self, course: _Course, trial: _Trial) -> int:
        """How many evaluations a trial has under way."""
        share, left = divmod(course.executor.workers, len(self.trials))
        return max(1, share + (trial.number < left))

    def replay(self, course: _Course, trial: _Trial) -> int:
        """Tell a trial what the journal knows and its agent does not, in the order of then; how many that were."""
        replayed = 0
        while trial.known and trial.told < course.end:
            while self.may_ask(course, trial):
                self.ask_one(course, trial)
            record = trial.known.popleft()
            if record.step != trial.told or record.slot >= len(trial.flying):
                raise self.foreign()
            if trial.flying[record.slot].proposal != record.proposal:
                raise self.foreign()
            self.time_budget.counts(record)
            self.tell(trial, record)
            replayed += 1
        return replayed

    def ask_on(self, course: _Course) -> None:
        """Put every free worker to work."""
        free = course.executor.workers - sum(len(trial.flying) for trial in self.trials)
        while free > 0 and (waiting := [trial for trial in self.trials if self.may_ask(course, trial)]):
            trial = min(waiting, key=lambda each: each.asked)
            self.ask_one(course, trial)
            self.submit(course, trial, trial.flying[-1])
            free -= 1

    def may_ask(self, course: _Course, trial: _Trial) -> bool:
        """Whether a trial can have one more evaluation under way."""
        return len(trial.flying) < self.limit(course, trial) and trial.asked < course.end

    def ask_one(self, course: _Course, trial: _Trial) -> None:
        """One more proposal of a trial is under way."""
        stage, place = course.stage, trial.asked - course.begin
        if place == 0:
            trial.agent.begin_task(stage.budget, stage.adapting)
        offered = None if course.offered is None else course.offered[[trial.number], place : place + 1]
        ((proposal,),) = self.ask(trial.agent, stage, 1, offered, (trial.number, trial.asked))
        inherited = self.artifacts.of_parent(course.task, trial.number, proposal)
        trial.flying.append(_Flight(trial.asked, proposal, inherited))

    def next_evaluation(self, course: _Course) -> None:
        """Wait for an evaluation to finish; tell it, commit it, announce it."""
        (number, index), evaluation = course.executor.wait()
        trial = self.trials[number]
        slot = [flight.index for flight in trial.flying].index(index)
        evaluation = self.settle(course.given.pop((number, index)), evaluation)
        record = Record(trial.told, slot, number, course.stage.label, trial.flying[slot].proposal, evaluation)
        if self.count(record):
            self.journal.add(self.search.name, [record])
            self.announce([record])
            raise self.gone_wrong(record)
        self.tell(trial, record)
        self.commit([record], meta_training=not course.stage.adapting)
        self.announce([record])

    def tell(self, trial: _Trial, record: Record) -> None:
        """An evaluation is under way no more."""
        del trial.flying[record.slot]
        reward = torch.tensor([[self.reward(record)]], dtype=torch.float64)
        trial.agent.observe([[record.proposal]], [[record.evaluation]], reward)
        self.artifacts.remember(record)
        trial.told += 1


@dataclass(frozen=True)
class _Course:
    """A stage, the numbers of evaluations a trial before and after it, and what it is walked with.

    Attributes:
        given: by trial and number of asking, what was handed to the executor and is under way.
    """

    stage: Stage
    task: Task
    begin: int
    end: int
    executor: Executor
    offered: Tensor | None
    given: dict[tuple[int, int], Proposal] = field(default_factory=dict)
