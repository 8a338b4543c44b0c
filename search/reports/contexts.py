"""The report's part on latent contexts: where a meta-trained agent's encoder places the tasks."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.agents.catcher.agent import CATCHer
from search.agents.catcher.contexts import encode_histories, mantel, project, ranking_dissimilarities
from search.agents.random_search import RandomSearch
from search.evaluation import Architecture
from search.loop.search import Stage
from search.randomness import TrialRandom, derive_seed
from search.reports.page import p_equals
from search.reports.scatter_plots import Cloud, contexts_svg
from search.runs.journal import Record
from search.statistics.significance import SIGNIFICANT
from search.studies.experiment import Experiment
from search.studies.meta_training import PHASE, MetaPhase

MOST_NETWORKS = 50
"""Networks of a history that are encoded."""
MOST_HISTORIES = 40
"""Histories of a task that are drawn."""
MOST_SOURCES = 40
"""Tasks practised on that are drawn: more could not be told apart."""
_MOST_POINTS = 800
_FEWEST_TASKS = 4
"""Three tasks have six orders, so no p-value of theirs is below 1/6."""

History = list[tuple[Architecture, float]]
Key = tuple[str, str]
"""``target`` or ``source``, and the task's name."""
Encoded = dict[Key, tuple[Tensor, Tensor]]
"""Means and variances by task."""


class ContextPictures:
    """Collects histories of tasks, then draws what meta-trained CATCHers make of them.

    Args:
        experiment: what the run's recipe describes.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        agents = {name: experiment.agent(name, trials=1) for name in experiment.agent_names}
        self.phases = [
            phase
            for phase in experiment.phases
            if isinstance(agent := agents[phase.agent], CATCHer) and agent.context == "posterior"
        ]
        random = next((name for name, agent in agents.items() if isinstance(agent, RandomSearch)), None)
        wanted = [phase.search for phase in self.phases]
        for target in experiment.targets if self.phases else ():
            wanted += [f"{target}/{name}" for name in {random, *(phase.agent for phase in self.phases)} - {None}]
        self._random = random
        # By search, stage and trial.
        self._histories: dict[str, dict[tuple[str, int], History]] = {search: {} for search in wanted}

    def read(self, search: str, records: Sequence[Record]) -> None:
        """Keep the first networks of a few trials, where the search is one that is needed."""
        if (histories := self._histories.get(search)) is None:
            return
        on_target = not search.startswith(f"{PHASE}/")
        for record in records:
            if record.trial < MOST_HISTORIES:
                history = histories.setdefault((record.stage, record.trial), [])
                if not on_target or len(history) < MOST_NETWORKS:
                    history.append((record.architecture, record.evaluation.score))

    def pictures(self, folder: Path) -> list[dict[str, Any]]:
        """A picture for each meta-training whose weights are in the run's folder.

        Meta-trainings that led to the same weights share one.

        Returns:
            For each its ``agent``, the ``targets`` it serves, how many meta-trainings there were (``trainings``), the
            ``drawing``, what it shows in ``words``, whether all tasks saw the ``same_networks``, and how many tasks are
            ``left_out``.
        """
        found: dict[bytes, dict[str, Any]] = {}
        for phase in self.phases:
            agent = self.experiment.agent(phase.agent, trials=1)
            assert isinstance(agent, CATCHer)
            try:
                phase.start(folder, agent)
            except (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError):
                continue  # not there yet, or of no use: the rest of the report stands without it
            served = [phase.target] if phase.target else list(self.experiment.targets)
            weights = [value.numpy().tobytes() for value in agent.encoder.state_dict().values()]
            key = b"".join([phase.agent.encode(), *weights])
            if key in found:
                found[key]["targets"] += served
            elif (picture := self._picture(phase, agent)) is not None:
                found[key] = {**picture, "agent": phase.agent, "targets": served, "trainings": phase.settings.trials}
        return list(found.values())

    def _picture(self, phase: MetaPhase, agent: CATCHer) -> dict[str, Any] | None:
        targets = [("target", name) for name in self.experiment.targets]
        stages = {_task_name(stage.label): stage for stage in phase.stages(derive_seed(self.experiment.seed, "pool"))}
        sources = [("source", name) for name in stages]
        tasks = targets + sources[:MOST_SOURCES]
        most = min(MOST_HISTORIES, max(5, _MOST_POINTS // len(tasks)))
        scores = self._scores(tasks, stages)
        encoded = (
            self._from_records(phase, agent, tasks, most)
            if scores is None
            else self._from_scores(agent, tasks, scores, most)
        )
        if len(encoded) < 2:
            return None
        means = torch.cat([mean for mean, _ in encoded.values()])
        if scores is not None:
            # All tasks saw the same networks: what these do to every task alike says nothing about a task.
            by_task = means.unflatten(0, (len(encoded), -1))
            means = (by_task - by_task.mean(0)).flatten(0, 1)
        coordinates, explained = project(means)
        parts = coordinates.split([len(mean) for mean, _ in encoded.values()])
        clouds = [
            Cloud(name, points.numpy(), kind == "target") for (kind, name), points in zip(encoded, parts, strict=True)
        ]
        return {
            "drawing": contexts_svg(clouds, explained.tolist()),
            "words": self._words(encoded, scores),
            "same_networks": scores is not None,
            "left_out": max(0, len(sources) - MOST_SOURCES),
        }

    def _from_scores(self, agent: CATCHer, tasks: Sequence[Key], scores: Tensor, most: int) -> Encoded:
        """The same sets of random networks on every task, so that tasks differ in their scores alone."""
        known = (~scores.isnan().any(0)).nonzero().squeeze(1)
        length = min(MOST_NETWORKS, len(known))
        if length < agent.settings.initial_networks:
            return {}
        rng = TrialRandom(derive_seed(self.experiment.seed, "contexts"))
        sets = torch.stack([known[rng.permutation(len(known))[0, :length]] for _ in range(most)])
        archs = self._architectures[sets]
        return {task: encode_histories(agent, archs, row[sets]) for task, row in zip(tasks, scores, strict=True)}

    def _from_records(self, phase: MetaPhase, agent: CATCHer, tasks: Sequence[Key], most: int) -> Encoded:
        """What was evaluated on each task."""
        histories: dict[Key, list[History]] = {task: [] for task in tasks}
        for (stage, _), history in self._histories[phase.search].items():
            if (task := ("source", _task_name(stage))) in histories:
                histories[task].append(history)
        for target in self.experiment.targets:
            histories["target", target] = self._on_target(target, phase.agent)
        rng = TrialRandom(derive_seed(self.experiment.seed, "contexts", phase.label))
        encoded = {}
        for task, found in histories.items():
            if (chosen := _chosen(found, most, agent.settings.initial_networks, rng)) is not None:
                encoded[task] = encode_histories(agent, *chosen)
        return encoded

    @cached_property
    def _architectures(self) -> Tensor:
        """Every architecture of the space, in the order of `Task.all_scores`: int64 ``[size, decisions]``."""
        return torch.tensor(list(self.experiment.space.enumerate()))

    def _on_target(self, target: str, agent: str) -> list[History]:
        """Histories of a target: random networks where there are any, else the agent's own first ones."""
        for name in (self._random, agent):
            if histories := self._histories.get(f"{target}/{name}"):
                return list(histories.values())
        return []

    def _words(self, encoded: Encoded, scores: Tensor | None) -> str:
        """Whether tasks that rank architectures alike lie close, where that is known, and how far apart tasks lie."""
        centres = torch.stack([mean.mean(0) for mean, _ in encoded.values()])
        distances, n = torch.cdist(centres, centres), len(encoded)
        words = []
        if scores is not None and n >= _FEWEST_TASKS:
            generator = torch.Generator().manual_seed(derive_seed(self.experiment.seed, "contexts", "permutations"))
            correlation, p = mantel(distances, ranking_dissimilarities(scores), generator)
            if not math.isnan(correlation):
                lie = "lie closer" if p < SIGNIFICANT else "are not shown to lie closer"
                words.append(
                    f"Tasks that rank architectures alike {lie}: over the {n * (n - 1) // 2} pairs of {n} tasks, the "
                    "distance of the mean contexts and the dissimilarity of the rankings have a Spearman correlation "
                    f"of {correlation:.2f} (permutation test: p {p_equals(p)})."
                )
        apart = float(distances.sum() / (n * (n - 1)))
        strays = float(torch.cat([variance for _, variance in encoded.values()]).sum(1).mean().sqrt())
        words.append(
            f"The mean contexts of two tasks are {apart:.2g} apart on average, and the context that the agent works "
            f"with, a draw from the posterior, strays from its mean by {strays:.2g}"
            + (": so it hardly tells these tasks apart." if apart < strays / 2 else ".")
        )
        return " ".join(words)

    def _scores(self, tasks: Sequence[Key], stages: Mapping[str, Stage]) -> Tensor | None:
        """What each task scores every architecture, float64 ``[tasks, size]``; None where one of them does not say."""
        rows: list[Tensor] = []
        # Targets come first: only where they are look-ups is a source's task made, which may need its data.
        for kind, name in tasks:
            try:
                task = self.experiment.targets[name] if kind == "target" else stages[name].make_task()
            except (ValueError, TypeError, OSError, ImportError):
                return None
            scores = task.all_scores()
            if scores is None or (rows and len(scores) != len(rows[0])):
                return None
            rows.append(scores)
        return torch.stack(rows)


def _task_name(label: str) -> str:
    """A stage's label less its number: the same task may come several times."""
    return label.partition(": ")[2]


def _chosen(
    histories: Sequence[History], most: int, fewest_networks: int, rng: TrialRandom
) -> tuple[Tensor, Tensor] | None:
    """Some histories of a task, all of one length: ``[n, k, decisions]`` and ``[n, k]``; None where all are too short.

    Args:
        histories: of the task.
        most: histories to choose.
        fewest_networks: shorter ones say too little.
        rng: which histories, and which of their networks.
    """
    length = min(MOST_NETWORKS, max(map(len, histories), default=0))
    long_enough = [history for history in histories if len(history) >= length and _succeeded(history)]
    if length < fewest_networks or not long_enough:
        return None
    archs, scores = [], []
    for place in rng.permutation(len(long_enough))[0, :most].tolist():
        history = long_enough[place]
        kept = [history[k] for k in rng.permutation(len(history))[0, :length].tolist()]
        archs.append([architecture for architecture, _ in kept])
        scores.append([score for _, score in kept])
    return torch.tensor(archs, dtype=torch.long), torch.tensor(scores, dtype=torch.float64)


def _succeeded(history: History) -> bool:
    return any(not math.isnan(score) for _, score in history)
