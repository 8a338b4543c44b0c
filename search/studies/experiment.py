"""An experiment: every agent on every target at equal budget, after the meta-training that some agents need."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Optional, Union

from search.agents.base import Agent, MetaAgent
from search.attributes.base import Attribute
from search.errors import CatchmarkError, RunError, nearest
from search.evaluation import Proposal
from search.executors.base import Executor
from search.loop.run_search import run_search
from search.loop.search import Listener, Search, Stage
from search.randomness import derive_seed
from search.results.experiment import summarise_experiment, summarise_targets
from search.results.references import measure_references
from search.runs.journal import Journal
from search.spaces.base import SearchSpace
from search.studies.base import Study, built
from search.studies.meta_training import PHASE, MetaPhase, MetaTraining, phases
from search.studies.transfer import EXCHANGE, exchange_search, find_winners
from search.tasks.base import Task, TaskPool, all_parts

ALL = "all"
"""In place of a target's name: every target."""
RESERVED = {ALL: "every target", PHASE: "what comes before the targets", EXCHANGE: "what comes after them"}
"""What a target can't be called."""


class Experiment(Study):
    """Every agent on every target at equal budget.

    Args:
        space: what can be built.
        targets: the tasks to find good architectures for, by name.
        agents: the searchers to compare, by name.
        budget: evaluations a trial and target; an agent's random opening counts.
        trials: independent repetitions of every search; trial ``k`` is the run of seed ``seed + k``.
        seed: of everything.
        batch: architectures an agent is asked for at once.
        budget_seconds: time a trial and target, where time is what agents are to be equal in: one number, or one for
            each target by its name. A trial ends before the evaluation that would exceed it, by what evaluations are
            said to cost (`Evaluation.cost_seconds`), or with the budget. Meta-training is not limited by it.
        meta_training: what happens before, once for all targets; None where no agent needs it.
        meta_training_for: what happens before, target by target, for instance to leave a target out of its own sources,
            or under the key ``all`` once for all of them. Each of a target's meta-trainings is for other agents.
        most_failures: stop when so many evaluations in a row failed.
        exchange: times that the best architecture of each target is evaluated anew on every target, to see whether what
            is best on one is the best on the others; 0 for never.
        log_children: give every child network a W&B run of its own, in the group of the recipe, with what it logged
            epoch by epoch. Each takes W&B a moment; a table of all evaluations is logged in any case.
        executor: where evaluations run; this process, one after another, if None. Look-ups run in this process always.
        attributes: what is known of an architecture before its evaluation, by name. Evaluations on targets keep them,
            the report says how well each orders the networks by itself, and agents that take ``attributes`` get them.
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
        budget_seconds: Optional[Union[float, dict[str, float]]] = None,  # noqa: UP007,UP045 - jsonargparse reads it on Python 3.10
        meta_training: Optional[MetaTraining] = None,  # noqa: UP045
        meta_training_for: Optional[dict[str, list[MetaTraining]]] = None,  # noqa: UP045
        most_failures: int = 10,
        exchange: int = 0,
        log_children: bool = False,
        executor: Optional[Executor] = None,  # noqa: UP045
        attributes: Optional[dict[str, Callable[[SearchSpace], Attribute]]] = None,  # noqa: UP045
        name: str = "",
        description: str = "",
    ):
        for key, value in {"budget": budget, "trials": trials, "batch": batch, "most_failures": most_failures}.items():
            if value < 1:
                raise ValueError(f"{key} is {value}, it must be at least 1")
        if exchange < 0:
            raise ValueError(f"exchange is {exchange}, it must be at least 0")
        if exchange and len(targets) < 2:
            raise ValueError(f"exchange is {exchange}, but there is one target: winners have nowhere to go")
        self.space, self.budget, self.trials, self.seed, self.batch = space, budget, trials, seed, batch
        self.most_failures, self.exchange, self.executor = most_failures, exchange, executor
        self.name, self.description, self.log_children = name, description, log_children
        self._make_agents = agents
        # Built at once, so that a wrong path or value is found before the first network is trained.
        self.targets = {key: built(f"targets.{key}", partial(make, space)) for key, make in targets.items()}
        self.attributes: dict[str, Attribute] = {
            key: built(f"attributes.{key}", partial(make, space)) for key, make in (attributes or {}).items()
        }
        self.budget_seconds = budget_seconds
        _check_time(budget_seconds, self.targets)
        for key in agents:
            _check_demands(key, self.agent(key, trials=1), self.targets)
        self.phases = self._phases(meta_training, meta_training_for or {})

    def _phases(self, shared: MetaTraining | None, by_target: Mapping[str, Sequence[MetaTraining]]) -> list[MetaPhase]:
        """Every meta-training, if no agent would be meta-trained twice for a target."""
        checked = None if shared is None else self._checked(shared, "meta_training")
        for word, meaning in RESERVED.items():
            if word in self.targets:
                raise CatchmarkError(f"targets: a target can't be called '{word}', the word stands for {meaning}")
        found: dict[str | None, list[tuple[MetaTraining, TaskPool]]] = {}
        for key, trainings in by_target.items():
            if key not in (*self.targets, ALL):
                raise CatchmarkError(
                    f"meta_training_for.{key}: there is no such target; targets: {', '.join(self.targets)}, or {ALL}"
                )
            found[None if key == ALL else key] = [
                self._checked(settings, f"meta_training_for.{key}[{k}]") for k, settings in enumerate(trainings)
            ]
        made = phases(checked, found)
        for target, agent in itertools.product(self.targets, self._make_agents):
            if sum(phase.serves(target, agent) for phase in made) > 1:
                raise CatchmarkError(
                    f"meta_training_for.{target}.agents: '{agent}' is meta-trained for all targets already"
                )
        return made

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A search opens with 5 random networks by default; the sixth is the first that its agent chooses."""
        return {"budget": 6, "trials": 2}

    def seconds(self, target: str) -> float | None:
        """The time that a trial has on a target, by what its evaluations cost; None where it has no limit."""
        return self.budget_seconds[target] if isinstance(self.budget_seconds, dict) else self.budget_seconds

    def _checked(self, settings: MetaTraining, key: str) -> tuple[MetaTraining, TaskPool]:
        """A meta-training of the recipe and its pool, if its agents can be meta-trained."""
        for name in settings.agents:
            if name not in self._make_agents:
                raise CatchmarkError(f"{key}.agents: '{name}' is not one of: {', '.join(self._make_agents)}")
            if not isinstance(self.agent(name, trials=1), MetaAgent):
                raise CatchmarkError(f"{key}.agents: '{name}' is not an agent that can be meta-trained")
        return settings, built(f"{key}.pool", partial(settings.pool, self.space))

    def trainers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Of the tasks, and of the pools that make tasks."""
        for name, target in self.targets.items():
            yield from ((f"targets.{name}", part.trainer) for part in all_parts(target))
        yield from ((f"{phase.search}.pool", phase.pool.trainer) for phase in self.phases)

    def with_tasks(self, targets: Mapping[str, Task], pool: Callable[[TaskPool], TaskPool]) -> Experiment:
        """The same experiment on other tasks, which evaluate the same in another way.

        Args:
            targets: each by its name.
            pool: gives for each pool of a meta-training the one in its place.
        """
        changed = copy.copy(self)
        changed.targets = dict(targets)
        changed.phases = [replace(phase, pool=pool(phase.pool)) for phase in self.phases]
        return changed

    @property
    def agent_names(self) -> list[str]:
        """The searchers to compare."""
        return list(self._make_agents)

    def meta_trainings(self, target: str, agent: str) -> int | None:
        """How many meta-trainings the trials of a search start from in turn; None where they start from none."""
        return next((phase.settings.trials for phase in self.phases if phase.serves(target, agent)), None)

    def agent(self, name: str, trials: int | None = None, seed: int | None = None, task: Task | None = None) -> Agent:
        """A fresh agent of that name.

        Args:
            name: one of `agent_names`.
            trials: how many searchers advance together; None for the experiment's.
            seed: of trial 0; None for the experiment's.
            task: what it will search on. An agent that has ``objectives`` (and ``score_metric``), an argument of its
                constructor and an attribute that is empty where the recipe says nothing of it, is given the task's. In
                the same way it is given the experiment's ``attributes`` where its own are None, for none at all may be
                meant, and the ``device`` of a task that has one.
        """
        trials, seed = self.trials if trials is None else trials, self.seed if seed is None else seed
        make = partial(self._make_agents[name], self.space, trials, seed)
        agent = built(f"agents.{name}", make)
        known: dict[str, Any] = {"attributes": self.attributes, "device": getattr(task, "device", "")}
        if task is not None and task.objectives:
            known |= {"objectives": task.objectives, "score_metric": task.score_metric}
        own = {key: getattr(agent, key, value) for key, value in known.items()}
        unsaid = {key for key, value in own.items() if value is None or (key != "attributes" and not value)}
        wanted = {key: value for key, value in known.items() if value and key in unsaid}
        return built(f"agents.{name}", partial(make, **wanted)) if wanted else agent

    def planned(self) -> dict[str, int]:
        """Every search by name, and how many evaluations it takes, in the order in which they run.

        Where time is limited (`seconds`), these are the most there can be.
        """
        plan = {phase.search: phase.evaluations for phase in self.phases}
        for target in self.targets:
            for name in self._make_agents:
                plan[f"{target}/{name}"] = self.trials * self.budget
        if self.exchange:
            plan |= {f"{EXCHANGE}/{target}": self.exchange * len(self.targets) for target in self.targets}
        return plan

    def priced_by(self, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
        """The tasks, and what they are of."""
        return {key: recipe.get(key) for key in ("space", "targets", "meta_training", "meta_training_for")}

    def run(self, folder: Path, journal: Journal, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
        """Run, or go on with, every search; returns the summary.

        Args:
            folder: the run's folder; meta-trained weights go to ``weights/AGENT.pt`` in it.
            journal: the run's journal.
            listeners: who wants to know.
        """
        with self.executor or nullcontext():
            self._open_tasks(journal)
            self._search_all(folder, journal, listeners)
        return self.summarise(journal)

    def _open_tasks(self, journal: Journal) -> None:
        """Refuse what would fail every evaluation of a target, before those of others are paid for.

        What workers of an executor have, their machines know.
        """
        for target, task in self.targets.items() if self.executor is None else ():
            if all(journal.progress(f"{target}/{name}")[0] for name in self._make_agents):
                continue
            try:
                task.open()
            except RunError as error:
                raise RunError(f"targets.{target}: {error}") from error

    def _search_all(self, folder: Path, journal: Journal, listeners: Sequence[Listener]) -> None:
        """Every search, one after another."""
        for phase in self.phases:
            seed = derive_seed(self.seed, "meta-training")
            agent = self.agent(phase.agent, trials=phase.settings.trials, seed=seed)
            stages = phase.stages(derive_seed(self.seed, "pool"))
            search = Search(phase.search, agent, stages, seed, self.batch, self.most_failures, executor=self.executor)
            run_search(search, journal, listeners)
            assert isinstance(agent, MetaAgent)
            phase.save_weights(folder, agent)
        for target, task in self.targets.items():
            for name in self._make_agents:
                agent = self.agent(name, task=task)
                self._remember_attributes(journal, f"{target}/{name}")
                for phase in self.phases:
                    if phase.serves(target, name):
                        assert isinstance(agent, MetaAgent)
                        phase.start(folder, agent)
                stage = Stage(target, lambda task=task: task, self.budget, adapting=True)  # type: ignore[misc]
                search = Search(
                    f"{target}/{name}",
                    agent,
                    [stage],
                    self.seed,
                    self.batch,
                    self.most_failures,
                    seconds=self.seconds(target),
                    executor=self.executor,
                    # Look-ups are made for all trials at once.
                    alone=None if task.instant else partial(self._alone, name, agent, task),
                    attributes=self.attributes,
                )
                run_search(search, journal, listeners)
            measure_references(journal, target, task, self.trials, self.seed)
        if self.exchange:
            self._exchange(journal, listeners)

    def _alone(self, name: str, together: Agent, task: Task, trial: int) -> Agent:
        """A fresh agent of one trial that is what the fresh agent of all trials is in this trial."""
        agent = self.agent(name, trials=1, seed=self.seed + trial, task=task)
        if isinstance(together, MetaAgent):
            assert isinstance(agent, MetaAgent)
            agent.load_weights(together.weights(), first=trial)
        return agent

    def _remember_attributes(self, journal: Journal, search: str) -> None:
        """Take what the journal knows, so that a resumed run measures nothing twice."""
        for record in journal.records(search) if self.attributes else ():
            for name, value in record.evaluation.attributes.items():
                if name in self.attributes:
                    self.attributes[name].remember(record.architecture, value)

    def _exchange(self, journal: Journal, listeners: Sequence[Listener]) -> None:
        """Every target's best architecture on every target."""
        winners = find_winners(summarise_targets(self, journal))
        seed = derive_seed(self.seed, EXCHANGE)
        for target, task in self.targets.items() if winners else ():
            search = exchange_search(self.space, target, task, winners, self.exchange, seed, self.most_failures)
            if self.executor is not None and not task.instant:
                search.executor, search.batch = self.executor, search.budget  # nobody learns: all can run at once
            run_search(search, journal, listeners)

    def summarise(self, journal: Journal) -> dict[str, Any]:
        """What the journal holds so far, as ``summary.json`` has it."""
        return summarise_experiment(self, journal)


def _check_demands(name: str, agent: Agent, targets: Mapping[str, Task]) -> None:
    """Refuse an agent that would ask of a target what that can't do."""
    for target, task in targets.items():
        if missing := sorted(agent.demands - task.honours):
            known = ", ".join(sorted(task.honours)) or "nothing but full evaluations"
            raise CatchmarkError(
                f"agents.{name}: {type(agent).__name__} asks for {', '.join(missing)}, which the target '{target}' "
                f"({type(task).__name__}) does not honour; it honours {known}"
            )


def _check_time(limits: float | Mapping[str, float] | None, targets: Mapping[str, Task]) -> None:
    """Refuse limits of time that no search can keep or reach."""
    if isinstance(limits, Mapping):
        for key in limits:
            if key not in targets:
                raise CatchmarkError(f"budget_seconds.{key}: there is no such target{nearest(key, targets, 'targets')}")
        if missing := [key for key in targets if key not in limits]:
            raise CatchmarkError(
                f"budget_seconds: there is no number for {', '.join(missing)}; give one to each target, or one "
                "number for all"
            )
    for target, task in targets.items() if limits is not None else ():
        seconds, key = (limits[target], f".{target}") if isinstance(limits, Mapping) else (limits, "")
        assert seconds is not None
        if not 0 < seconds < math.inf:
            raise CatchmarkError(f"budget_seconds{key} is {seconds}, it must be a number above 0")
        # A look-up takes no time: where it is not said to cost any, the limit would silently never be reached.
        if task.instant and not next(task.evaluate([Proposal(next(task.space.enumerate()))])).cost_seconds:
            raise CatchmarkError(
                f"budget_seconds: an evaluation on '{target}' is said to cost no time, so it would never be used "
                "up; give the target's task its cost_seconds"
            )
