"""An experiment: every agent on every target at equal budget, after the meta-training that some agents need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch

from search.agents.base import Agent, MetaAgent
from search.errors import CatchmarkError, one_line
from search.journal import Journal
from search.loop import Listener, Search, Stage, run_search
from search.randomness import derive_seed
from search.spaces.base import SearchSpace
from search.summary import summarise_search
from search.tasks.base import Task, TaskPool


@dataclass
class MetaTraining:
    """The phase before the targets (CATCH, Algorithm 1).

    Attributes:
        pool: where the tasks come from.
        agents: names of the agents that are meta-trained; each on the same tasks.
        epochs: meta-epochs, a new task each. CATCH, sec. 4.2.1: 25.
        networks: networks evaluated a meta-epoch. CATCH, sec. 4.2.1: 20.
        trials: independent meta-trainings of each agent, dealt out to the trials of a search in turn. With fewer of
            them than trials, an interval over trials leaves out part of the luck of meta-training.
    """

    pool: Callable[[SearchSpace], TaskPool]
    agents: list[str]
    epochs: int = 25
    networks: int = 20
    trials: int = 1

    def __post_init__(self) -> None:
        """Refuse a phase that could not take place."""
        for name in ("epochs", "networks", "trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not self.agents:
            raise ValueError("agents is empty, at least one agent must be meta-trained")
        if len(set(self.agents)) < len(self.agents):
            raise ValueError(f"agents names one twice: {', '.join(self.agents)}")


class Experiment:
    """Every agent on every target at equal budget.

    Args:
        space: what can be built.
        targets: the tasks to find good architectures for, by name.
        agents: the searchers to compare, by name.
        budget: evaluations a trial and target; an agent's random opening counts.
        trials: independent repetitions of every search; trial ``k`` is the run of seed ``seed + k``.
        seed: of everything.
        batch: architectures an agent is asked for at once.
        meta_training: what happens before; None where no agent needs it.
        most_failures: stop when so many evaluations in a row failed.
        name: names the folder of its runs; the recipe's file name where empty.
        description: what it shows, in a sentence or two; opens the report.
    """

    def __init__(
        self,
        space: SearchSpace,
        targets: dict[str, Callable[[SearchSpace], Task]],
        agents: dict[str, Callable[[SearchSpace, int, int], Agent]],
        budget: int = 50,
        trials: int = 1,
        seed: int = 0,
        batch: int = 1,
        meta_training: Optional[MetaTraining] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        most_failures: int = 10,
        name: str = "",
        description: str = "",
    ):
        for key, value in {"budget": budget, "trials": trials, "batch": batch, "most_failures": most_failures}.items():
            if value < 1:
                raise ValueError(f"{key} is {value}, it must be at least 1")
        self.space, self.budget, self.trials, self.seed, self.batch = space, budget, trials, seed, batch
        self.meta_training, self.most_failures = meta_training, most_failures
        self.name, self.description = name, description
        self._make_agents = agents
        # Built at once, so that a wrong path or value is found before the first network is trained.
        self.targets = {
            key: _built(f"targets.{key}", lambda make=make: make(space))  # type: ignore[misc]
            for key, make in targets.items()
        }
        for key in agents:
            self.agent(key, trials=1)
        self.pool: TaskPool | None = None
        if meta_training is not None:
            self.pool = _built("meta_training.pool", lambda: meta_training.pool(space))
            for key in meta_training.agents:
                if key not in agents:
                    raise CatchmarkError(f"meta_training.agents: '{key}' is not one of: {', '.join(agents)}")
                if not isinstance(self.agent(key, trials=1), MetaAgent):
                    raise CatchmarkError(f"meta_training.agents: '{key}' is not an agent that can be meta-trained")

    def agent(self, name: str, trials: int | None = None, seed: int | None = None) -> Agent:
        """A fresh agent of that name."""
        make = self._make_agents[name]
        trials, seed = self.trials if trials is None else trials, self.seed if seed is None else seed
        return _built(f"agents.{name}", lambda: make(self.space, trials, seed))

    def planned(self) -> dict[str, int]:
        """Every search by name, and how many evaluations it takes, in the order in which they run."""
        plan = {}
        if self.meta_training is not None:
            for name in self.meta_training.agents:
                plan[f"meta_training/{name}"] = (
                    self.meta_training.trials * self.meta_training.epochs * self.meta_training.networks
                )
        for target in self.targets:
            for name in self._make_agents:
                plan[f"{target}/{name}"] = self.trials * self.budget
        return plan

    def run(self, folder: Path, journal: Journal, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
        """Run, or go on with, every search; returns the summary.

        Args:
            folder: the run's folder; meta-trained weights go to ``weights/AGENT.pt`` in it.
            journal: the run's journal.
            listeners: who wants to know.
        """
        for search in self._searches(folder):
            run_search(search, journal, listeners)
            if isinstance(search.agent, MetaAgent) and search.name.startswith("meta_training/"):
                _save_weights(folder, search.name.removeprefix("meta_training/"), search.agent)
        return self.summarise(journal)

    def _searches(self, folder: Path) -> Iterator[Search]:
        meta_trained: list[str] = []
        if self.meta_training is not None:
            meta_trained = self.meta_training.agents
            for name in meta_trained:
                seed = derive_seed(self.seed, "meta-training")
                agent = self.agent(name, trials=self.meta_training.trials, seed=seed)
                yield Search(f"meta_training/{name}", agent, self._meta_stages(), seed, self.batch, self.most_failures)
        for target, task in self.targets.items():
            for name in self._make_agents:
                agent = self.agent(name)
                if name in meta_trained:
                    assert isinstance(agent, MetaAgent)
                    agent.load_weights(torch.load(folder / "weights" / f"{name}.pt", weights_only=True))
                stage = Stage(target, lambda task=task: task, self.budget, adapting=True)  # type: ignore[misc]
                yield Search(f"{target}/{name}", agent, [stage], self.seed, self.batch, self.most_failures)

    def _meta_stages(self) -> list[Stage]:
        assert self.pool is not None and self.meta_training is not None
        pool, networks, seed = self.pool, self.meta_training.networks, derive_seed(self.seed, "pool")
        return [
            Stage(
                f"{index + 1}: {pool.describe(index, seed)}",
                lambda index=index: pool.draw(index, seed),  # type: ignore[misc]
                networks,
                adapting=False,
            )
            for index in range(self.meta_training.epochs)
        ]

    def summarise(self, journal: Journal) -> dict[str, Any]:
        """What the journal holds so far, as ``summary.json`` has it."""
        summary: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "space": self.space.name,
            "seed": self.seed,
            "budget": self.budget,
            "trials": self.trials,
            "meta_training": {},
            "targets": {},
        }
        begun = set(journal.searches())
        for search in self.planned():
            phase, _, agent = search.partition("/")
            if search not in begun:
                continue
            records, (_, seconds) = list(journal.records(search)), journal.progress(search)
            if phase == "meta_training":
                stages = list(dict.fromkeys(record.stage for record in records))
                summary["meta_training"][agent] = {
                    "tasks": stages,
                    "evaluations": len(records),
                    "failed": sum(record.evaluation.status == "failed" for record in records),
                    "seconds": seconds,
                }
                continue
            task = self.targets[phase]
            scores = task.all_scores()
            target = summary["targets"].setdefault(phase, {"score_name": task.score_name, "agents": {}})
            target["agents"][agent] = summarise_search(
                records, self.trials, self.space, None if scores is None else scores.numpy(), seconds
            )
        return summary


def _built(key: str, make: Callable[[], Any]) -> Any:
    """Build an object of the recipe; what it refuses is said with the recipe's key."""
    try:
        return make()
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        raise CatchmarkError(f"{key}: {one_line(error)}") from error


def _save_weights(folder: Path, name: str, agent: MetaAgent) -> None:
    path = folder / "weights" / f"{name}.pt"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".partial")
    torch.save(agent.weights(), temporary)
    os.replace(temporary, path)
