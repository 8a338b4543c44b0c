"""The report's part on several objectives: what each agent evaluated between them, how much of the space it covered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from search.reports.best_so_far import visible_range
from search.reports.line_chart import Line, line_chart
from search.reports.page import decimals_for
from search.reports.parallel_plot import parallel_svg
from search.reports.scatter_plots import Explored, fronts_svg
from search.reports.svg import SERIES
from search.results.fronts import ObjectiveValues, coverage, directions_of, feasible_space, objective_values
from search.runs.journal import Record
from search.statistics.clusters import clustered_mean_interval
from search.statistics.pareto import pareto_front
from search.studies.experiment import Experiment
from search.studies.meta_training import PHASE


class Fronts:
    """Collects the objectives of every evaluation, then draws the fronts.

    Args:
        experiment: what the run's recipe describes.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._targets = {name for name, task in experiment.targets.items() if len(task.objectives) > 1}
        self._found: dict[str, dict[str, ObjectiveValues]] = {}

    def read(self, search: str, records: Sequence[Record]) -> None:
        """Keep the objectives of a search on a target that has several."""
        target, _, agent = search.partition("/")
        if target != PHASE and target in self._targets:
            task, seconds = self.experiment.targets[target], self.experiment.seconds(target)
            values = objective_values(records, self.experiment.trials, task, seconds)
            self._found.setdefault(target, {})[agent] = values

    def section(self, target: str, colors: Mapping[str, int]) -> dict[str, Any] | None:
        """The pictures and the table of a target; None where it has one objective, or nothing succeeded.

        Args:
            target: its name.
            colors: by agent, the place of its colour.
        """
        found = self._found.get(target, {})
        if not any((~each.values.isnan().any(-1)).any() for each in found.values()):
            return None
        task = self.experiment.targets[target]
        names, directions = list(task.objectives), directions_of(task.objectives)
        limits = [each.limit for each in task.objectives.values()]
        space = feasible_space(task)
        covered = coverage(found, directions, space)
        shared = {agent: self.experiment.meta_trainings(target, agent) for agent in found}
        rows: list[dict[str, Any]] = [
            {
                "agent": agent,
                "color": colors[agent] % len(SERIES),
                "mean": float(shares.mean()) if len(shares) else None,
                "interval": clustered_mean_interval(shares.numpy(), shared[agent], (0.0, 1.0)),
                "infeasible": int((~found[agent].feasible & ~found[agent].values.isnan().any(-1)).sum()),
            }
            for agent, shares in covered.shares.items()
        ]
        rows.sort(key=lambda row: math.inf if row["mean"] is None else -row["mean"])
        percent = [None if row["mean"] is None else 100 * row["mean"] for row in rows]
        ends = [100 * end for row in rows for end in row["interval"] or ()]
        explored = [_explored(agent, values, directions, colors[agent]) for agent, values in found.items()]
        if len(names) == 2:
            truth = None if space is None else space[pareto_front(space, directions)].flip(1).numpy()
            drawing = fronts_svg(explored, names[::-1], directions[::-1], truth, limits[::-1])
        else:
            drawing = parallel_svg(explored, names, directions, limits)
        return {
            "names": names,
            "title": f"{', '.join(names[:-1])} and {names[-1]}",
            "limits": {
                name: f"{'at least' if each.direction == 'max' else 'at most'} {each.limit:g}"
                for name, each in task.objectives.items()
                if each.limit is not None
            },
            "drawing": drawing,
            "growth": _growth(covered.curves, colors, shared),
            "rows": rows,
            "decimals": min(decimals_for([*percent, *ends]), 3),
            "space_known": space is not None,
            "seen_by": [
                agent for agent in found if getattr(self.experiment.agent(agent, 1, task=task), "objectives", None)
            ],
        }


def _explored(agent: str, found: ObjectiveValues, directions: Sequence[str], color: int) -> Explored:
    """The first trial of an agent; of two objectives the second one lies on the horizontal axis."""
    known = [k for k in range(len(found.scores)) if not found.values[0, k].isnan().any()]
    points, feasible = found.values[0][known], found.feasible[0][known]
    scores = [found.scores[k] for k in known]
    best = max(range(len(known)), key=lambda k: -math.inf if math.isnan(scores[k]) else scores[k], default=None)
    if best is not None and not feasible[best]:
        best = None
    front = pareto_front(found.kept[0][known], directions).numpy()
    shown = points.flip(1) if len(directions) == 2 else points
    return Explored(agent, shown.numpy(), front, best, color, feasible.numpy())


def _growth(curves: Mapping[str, Tensor], colors: Mapping[str, int], shared: Mapping[str, int | None]) -> str:
    """How the hypervolume grew, as an ``<svg>`` element; empty where there is nothing to dominate."""
    drawn = [
        Line(
            agent,
            range(1, curve.shape[1] + 1),
            (100 * curve.mean(0)).tolist(),
            [clustered_mean_interval(100 * column, shared[agent], (0.0, 100.0)) for column in curve.T.numpy()],
            colors[agent],
        )
        for agent, curve in curves.items()
        if curve.shape[1]
    ]
    if not drawn:
        return ""
    name = "dominated hypervolume (%)"
    named = ", ".join(line.label for line in drawn)
    return line_chart(
        drawn, "evaluations", name, y_range=visible_range(drawn), steps=True, description=f"{name}, of: {named}"
    )
