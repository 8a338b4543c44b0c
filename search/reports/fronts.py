"""The report's part on two objectives: what each agent evaluated between them, and how much of the space it covered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.loop.time_budget import within
from search.reports.page import decimals_for
from search.reports.scatter_plots import Explored, fronts_svg
from search.reports.svg import SERIES
from search.runs.journal import Record
from search.statistics.intervals import mean_interval
from search.statistics.pareto import hypervolume, oriented, pareto_front
from search.studies.experiment import Experiment
from search.studies.meta_training import PHASE


class Fronts:
    """Collects the two objectives of every evaluation, then draws the fronts.

    Args:
        experiment: what the run's recipe describes.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._targets = {name for name, task in experiment.targets.items() if len(task.objectives) == 2}
        # By target and agent: float64 [trials, n, 2], and the scores of the first trial [n].
        self._points: dict[str, dict[str, tuple[Tensor, list[float]]]] = {}

    def read(self, search: str, records: Sequence[Record]) -> None:
        """Keep the objectives of a search on a target that has two."""
        target, _, agent = search.partition("/")
        if target == PHASE or target not in self._targets:
            return
        names = tuple(self.experiment.targets[target].objectives)
        points: list[list[tuple[float, ...]]] = [[] for _ in range(self.experiment.trials)]
        scores = []
        for record in within(records, self.experiment.seconds(target)):
            task, evaluation = self.experiment.targets[target], record.evaluation
            points[record.trial].append(tuple(_number(task.value(evaluation, name)) for name in names))
            if record.trial == 0:
                scores.append(record.evaluation.score)
        longest = max(map(len, points))
        padded = [row + [(math.nan, math.nan)] * (longest - len(row)) for row in points]
        tensor = torch.tensor(padded, dtype=torch.float64).reshape(len(points), longest, 2)
        self._points.setdefault(target, {})[agent] = (tensor, scores)

    def section(self, target: str, colors: Mapping[str, int]) -> dict[str, Any] | None:
        """The picture and the table of a target; None where it has not two objectives, or nothing succeeded.

        Args:
            target: its name.
            colors: by agent, the place of its colour.
        """
        found = self._points.get(target, {})
        flat = [points.flatten(0, 1) for points, _ in found.values()]
        evaluated = torch.cat(flat) if flat else torch.zeros(0, 2, dtype=torch.float64)
        if not (~evaluated.isnan().any(1)).any():
            return None
        task = self.experiment.targets[target]
        names, directions = list(task.objectives), [each.direction for each in task.objectives.values()]
        space = task.all_objectives()
        whole = evaluated if space is None else space
        complete = whole[~whole.isnan().any(1)]
        # Back again by the same signs: the worst value of an objective in its own unit.
        reference = oriented(oriented(complete, directions).min(0).values, directions)
        most = float(hypervolume(whole, reference, directions))
        rows: list[dict[str, Any]] = []
        for agent, (points, _) in found.items():
            shares = (hypervolume(points, reference, directions) / most).numpy() if most > 0 else np.empty(0)
            mean = float(shares.mean()) if len(shares) else None
            rows.append(
                {
                    "agent": agent,
                    "color": colors[agent] % len(SERIES),
                    "mean": mean,
                    "interval": mean_interval(shares),
                }
            )
        rows.sort(key=lambda row: math.inf if row["mean"] is None else -row["mean"])
        percent = [None if row["mean"] is None else 100 * row["mean"] for row in rows]
        ends = [100 * end for row in rows for end in row["interval"] or ()]
        return {
            "names": names,
            "drawing": self._drawing(found, colors, names, directions, space),
            "rows": rows,
            "decimals": min(decimals_for([*percent, *ends]), 3),
            "space_known": space is not None,
        }

    @staticmethod
    def _drawing(
        found: Mapping[str, tuple[Tensor, list[float]]],
        colors: Mapping[str, int],
        names: Sequence[str],
        directions: Sequence[str],
        space: Tensor | None,
    ) -> str:
        """The first trial of each agent; the second objective lies on the horizontal axis."""
        explored = []
        for agent, (points, scores) in found.items():
            first = points[0][: len(scores)]
            known = [k for k in range(len(scores)) if not first[k].isnan().any()]
            best = max(known, key=lambda k: -math.inf if math.isnan(scores[k]) else scores[k], default=None)
            explored.append(
                Explored(
                    agent,
                    first[known].flip(1).numpy(),
                    pareto_front(first[known], directions).numpy(),
                    None if best is None else known.index(best),
                    colors[agent],
                )
            )
        truth = None if space is None else space[pareto_front(space, directions)].flip(1).numpy()
        return fronts_svg(explored, names[::-1], directions[::-1], truth)


def _number(value: float) -> float:
    return value if math.isfinite(value) else math.nan
