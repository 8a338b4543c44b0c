"""What searches found between several objectives: fronts, and how much of the space these leave behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search.evaluation import Objective
from search.loop.time_budget import within
from search.runs.journal import Record
from search.statistics.clusters import clustered_mean_interval
from search.statistics.pareto import hypervolume, hypervolume_curve, oriented, pareto_front
from search.tasks.base import Task, keeps_limits


@dataclass(frozen=True)
class ObjectiveValues:
    """The objectives of one search's evaluations.

    Attributes:
        values: float64 ``[trials, n, objectives]``, NaN where there is none, or the evaluation is not a full one.
        feasible: bool ``[trials, n]``, which evaluations can be the best (`Record.can_be_best`).
        scores: of the first trial's evaluations, NaN where they are not feasible.
    """

    values: Tensor
    feasible: Tensor
    scores: list[float]

    @property
    def kept(self) -> Tensor:
        """The values with NaN in place of what is not feasible."""
        return self.values.where(self.feasible[..., None], torch.nan)


def objective_values(
    records: Iterable[Record], trials: int, task: Task, seconds: float | None = None
) -> ObjectiveValues:
    """The objectives of a search's evaluations.

    Args:
        records: all evaluations of the search so far.
        trials: how many searches ran together.
        task: the search's.
        seconds: a trial's limit of time, if it has one: what it evaluated later is left out.
    """
    nothing = [math.nan] * len(task.objectives)
    points: list[list[list[float]]] = [[] for _ in range(trials)]
    feasible: list[list[bool]] = [[] for _ in range(trials)]
    scores = []
    for record in within(records, seconds):
        evaluation = record.evaluation
        known = [_finite(task.value(evaluation, name)) for name in task.objectives] if record.full else nothing
        points[record.trial].append(known)
        feasible[record.trial].append(record.can_be_best)
        if record.trial == 0:
            scores.append(evaluation.score if record.can_be_best else math.nan)
    longest = max(map(len, points))
    padded = [row + [nothing] * (longest - len(row)) for row in points]
    kept = [row + [False] * (longest - len(row)) for row in feasible]
    values = torch.tensor(padded, dtype=torch.float64).reshape(trials, longest, len(task.objectives))
    return ObjectiveValues(values, torch.tensor(kept, dtype=torch.bool).reshape(trials, longest), scores)


def feasible_space(task: Task) -> Tensor | None:
    """The objectives of every architecture, float64 ``[size, objectives]``; NaN rows for those that break a limit."""
    if (values := task.all_objectives()) is None:
        return None
    kept = keeps_limits(task.objectives, dict(zip(task.objectives, values.unbind(1), strict=True)))
    return values.where(kept.expand(len(values))[:, None], torch.nan)


@dataclass(frozen=True)
class Coverage:
    """How much of what could be dominated the trials of each agent dominate.

    Attributes:
        shares: by agent, in [0, 1], float64 ``[trials]``; without entries where there is nothing to dominate.
        curves: by agent the same after each evaluation, float64 ``[trials, n]``.
    """

    shares: dict[str, Tensor]
    curves: dict[str, Tensor]


def coverage(found: Mapping[str, ObjectiveValues], directions: Sequence[str], space: Tensor | None) -> Coverage:
    """Hypervolumes as shares of the whole, down to the worst value of each objective that is feasible.

    Args:
        found: by agent.
        directions: ``max`` or ``min`` for each objective.
        space: `feasible_space`; None: what all agents evaluated together is the whole.
    """
    whole = torch.cat([each.kept.flatten(0, 1) for each in found.values()]) if space is None else space
    complete = whole[~whole.isnan().any(1)]
    none = torch.zeros(0, dtype=torch.float64)
    if not len(complete):
        return Coverage(dict.fromkeys(found, none), dict.fromkeys(found, none[None]))
    # Back again by the same signs: the worst value of an objective in its own unit.
    reference = oriented(oriented(complete, directions).min(0).values, directions)
    most = float(hypervolume(whole, reference, directions))
    if most <= 0:
        return Coverage(dict.fromkeys(found, none), dict.fromkeys(found, none[None]))
    shares = {agent: hypervolume(each.kept, reference, directions) / most for agent, each in found.items()}
    curves = {agent: hypervolume_curve(each.kept, reference, directions) / most for agent, each in found.items()}
    return Coverage(shares, curves)


def front_records(records: Iterable[Record], task: Task) -> list[Record]:
    """The evaluations on the Pareto front of all that are feasible, the first one of each network.

    Returns:
        From the best to the worst value of the first objective.
    """
    directions = directions_of(task.objectives)
    good = [record for record in records if record.can_be_best]
    if not good:
        return []
    values = torch.tensor(
        [[_finite(task.value(record.evaluation, name)) for name in task.objectives] for record in good],
        dtype=torch.float64,
    )
    canonical = task.space.canonical(torch.tensor([record.architecture for record in good])).tolist()
    front: dict[tuple[int, ...], int] = {}
    for k in pareto_front(values, directions).nonzero()[:, 0].tolist():
        front.setdefault(tuple(canonical[k]), k)
    first = oriented(values, directions)[:, 0].tolist()
    return [good[k] for k in sorted(front.values(), key=lambda k: -first[k])]


def summarise_front(
    searches: Mapping[str, Sequence[Record]],
    task: Task,
    trials: int,
    seconds: float | None,
    meta_trainings: Mapping[str, int | None],
) -> Any:
    """A target's objectives, its front, and the hypervolume of each agent, in plain numbers, strings and lists.

    Args:
        searches: by agent all evaluations so far.
        task: the target's.
        trials: how many searches ran together.
        seconds: a trial's limit of time, if it has one.
        meta_trainings: by agent those that its trials start from in turn, if they do.
    """
    found = {agent: objective_values(records, trials, task, seconds) for agent, records in searches.items()}
    shares = coverage(found, directions_of(task.objectives), feasible_space(task)).shares
    finder = {id(record): agent for agent, records in searches.items() for record in records}
    counted = [record for records in searches.values() for record in within(records, seconds)]
    return {
        "objectives": {name: dict(vars(each)) for name, each in task.objectives.items()},
        "front": [
            {
                "architecture": task.space.format(record.architecture),
                "choices": list(record.architecture),
                "agent": finder[id(record)],
                "trial": record.trial,
                "score": record.evaluation.score,
                "objectives": {name: task.value(record.evaluation, name) for name in task.objectives},
            }
            for record in front_records(counted, task)
        ],
        "hypervolume": {
            agent: {
                "mean": float(share.mean()) if len(share) else None,
                "interval": clustered_mean_interval(share.numpy(), meta_trainings[agent], (0.0, 1.0)),
            }
            for agent, share in shares.items()
        },
    }


def has_front(objectives: Mapping[str, Objective]) -> bool:
    """Whether a summary says anything of a front: with two objectives and no limit the report alone does."""
    limited = any(each.limit is not None for each in objectives.values())
    return len(objectives) > 2 or (len(objectives) == 2 and limited)


def directions_of(objectives: Mapping[str, Objective]) -> list[str]:
    """``max`` or ``min`` for each, in their order."""
    return [each.direction for each in objectives.values()]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
