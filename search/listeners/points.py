"""The curve of a search, point by point, as loggers draw it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from search.loop.search import Search
from search.loop.time_budget import TimeBudget
from search.runs.journal import Record


class SearchPoints:
    """What there is to draw after so many evaluations of each trial; of several trials the mean.

    Args:
        search: whose evaluations are added.

    Attributes:
        best: the best evaluation so far that counts; None before there is one.
    """

    def __init__(self, search: Search):
        trials = search.agent.trials
        self.best: Record | None = None
        # By number of evaluation within a trial: trials may be ahead of each other.
        self._incomplete: dict[int, list[Record]] = defaultdict(list)
        self._made_by = [0] * trials
        self._best_of = [-math.inf] * trials
        self._points, self._time_budget = 0, TimeBudget(search.seconds)

    def add(self, record: Record) -> Iterator[dict[str, Any]]:
        """One more evaluation; the point that it completes, if it does: ``evaluation`` is its number, from 1."""
        if self._time_budget.counts(record) and record.can_be_best:
            if self.best is None or record.evaluation.score > self.best.evaluation.score:
                self.best = record
            self._best_of[record.trial] = max(self._best_of[record.trial], record.evaluation.score)
        number = self._made_by[record.trial] = self._made_by[record.trial] + 1
        self._incomplete[number].append(record)
        if len(self._incomplete[number]) == len(self._best_of):
            yield self._point(self._incomplete.pop(number))

    def _point(self, records: list[Record]) -> dict[str, Any]:
        self._points += 1
        found = [best for best in self._best_of if best > -math.inf]
        scores = [record.evaluation.score for record in records if record.evaluation.status == "ok"]
        point: dict[str, Any] = {
            "evaluation": self._points,
            "failed": len(records) - len(scores),
            "cost_seconds": sum(record.evaluation.cost_seconds for record in records),
        }
        if scores:
            point["score"] = sum(scores) / len(scores)
        if found:
            point["best_score"] = sum(found) / len(found)
        if len(records) == 1:
            metrics = records[0].evaluation.metrics
            point |= {f"metrics/{name}": value for name, value in metrics.items() if math.isfinite(value)}
            point["stage"] = records[0].stage
        return point
