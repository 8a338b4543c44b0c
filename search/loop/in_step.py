"""A search in step: all trials ask, evaluate and are told together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search.evaluation import Evaluation, Proposal
from search.executors.inline import evaluate_all
from search.loop.walk import Asked, Walk
from search.runs.journal import Record
from search.tasks.base import Task

if TYPE_CHECKING:
    from search.loop.search import Stage


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

    @property
    def told(self) -> tuple[int, int]:
        """Of the first trial, steps behind the agent's state and evaluations left."""
        return self.step, self.search.budget - self.done

    def before(self, end: int) -> bool:
        """Whether fewer evaluations a trial have been told."""
        return self.done < end

    def take(self, record: Record) -> None:
        """Count an evaluation that was told; others are read where their step is walked again."""
        if record.step < self.step:
            self.time_budget.counts(record)
            self.artifacts.remember(record)

    def stage(self, stage: Stage, begin: int, end: int) -> None:
        """One step after another."""
        task = self.make_task(stage)
        if self.search.executor is not None and not task.instant:
            self.search.executor.begin(task)
        if self.done == begin:
            self.search.agent.begin_task(stage.budget, stage.adapting)
        offered = self.offered(stage, task)
        self.rank(stage, task, lambda record: record.step < self.step)
        while self.done < end and not self.finished:
            n, place = min(self.search.batch, end - self.done), self.done - begin
            self.one_step(stage, task, n, None if offered is None else offered[:, place : place + n])

    def one_step(self, stage: Stage, task: Task, n: int, offered: Tensor | None = None) -> None:
        """Ask for ``n`` proposals a trial, evaluate those the journal does not know yet, tell, commit.

        Where the task offers architectures that are paid for, the agent is told of these and not asked.
        """
        agent, name = self.search.agent, self.search.name
        asked = self.ask(agent, stage, n, offered, (0, self.done))
        told: dict[tuple[int, int], Record] = {}
        for record in self.journal.records(name, self.step):
            place = record.slot, record.trial
            if record.slot >= n or record.trial >= agent.trials or asked[record.trial][record.slot] != record.proposal:
                raise self.foreign()
            told[place] = record
            self.time_budget.counts(record)
        unsaved: list[Record] = []
        for record in self.evaluate(stage, task, asked, told):
            told[record.slot, record.trial] = record
            unsaved.append(record)
            gone_wrong = self.count(record)
            # What took real work is committed at once; the step's last evaluation waits for the state after it.
            if gone_wrong or (len(told) < n * agent.trials and not task.instant):
                self.journal.add(name, unsaved)
                self.announce(unsaved)
                unsaved = []
            if gone_wrong:
                raise self.gone_wrong(record)
        rewards = [[0.0] * n for _ in asked]
        for slot, trial in sorted(told):
            rewards[trial][slot] = self.reward(told[slot, trial])
            self.artifacts.remember(told[slot, trial])
        found = [[told[slot, trial].evaluation for slot in range(n)] for trial in range(agent.trials)]
        agent.observe(asked, found, torch.tensor(rewards, dtype=torch.float64))
        self.done, self.step = self.done + n, self.step + 1
        self.commit(unsaved, meta_training=not stage.adapting)
        self.announce(unsaved)

    def evaluate(
        self, stage: Stage, task: Task, asked: Asked, known: Mapping[tuple[int, int], Record]
    ) -> Iterator[Record]:
        """What a step asked and the journal does not know; in one process slot by slot, the trials of one in turn."""
        todo = [
            (slot, trial) for slot in range(len(asked[0])) for trial in range(len(asked)) if (slot, trial) not in known
        ]
        given = []
        for slot, trial in todo:
            inherited = self.artifacts.of_parent(task, trial, asked[trial][slot])
            given.append(self.artifacts.place(task, asked[trial][slot], trial, self.done + slot, inherited))
        for index, evaluation in self.evaluations(task, given):
            slot, trial = todo[index]
            settled = self.settle(given[index], evaluation)
            yield Record(self.step, slot, trial, stage.label, asked[trial][slot], settled)

    def evaluations(self, task: Task, given: Sequence[Proposal]) -> Iterator[tuple[int, Evaluation]]:
        """The evaluation of each, with its place; on an executor in the order in which they finish."""
        executor = self.search.executor
        if executor is None or task.instant:
            yield from enumerate(evaluate_all(task, given))
            return
        for index, proposal in enumerate(given):
            executor.submit((index, 0), proposal)
        for _ in given:
            (index, _), evaluation = executor.wait()
            yield index, evaluation
