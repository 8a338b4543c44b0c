"""The report's part on metrics: each of them against the score, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from search.reports.svg import GRID, INK, SERIES, house_style, new_figure, shortened, to_svg
from search.results.metrics import MetricCorrelation, correlate_metrics
from search.runs.journal import Record
from search.studies.experiment import Experiment

MOST_METRICS = 12
"""Metrics of a target that are drawn: the first ones."""
_COLUMNS, _SIDE, _GAP = 3, 1.75, 0.7
"""Panels in a row; side of a panel, and room for names and numbers around it, in inches."""


class MetricPlots:
    """Collects what was trained, then draws its metrics against its scores.

    Args:
        experiment: what the run's recipe describes.
    """

    def __init__(self, experiment: Experiment):
        # What a table holds of architectures is no outcome of this run, and may be millions of numbers.
        self._targets = {name for name, task in experiment.targets.items() if not task.instant}
        self._records: dict[str, list[Record]] = {}

    def read(self, search: str, records: Sequence[Record]) -> None:
        """Keep the evaluations of a search on a target that trains networks."""
        target = search.partition("/")[0]
        if target in self._targets:
            self._records.setdefault(target, []).extend(records)

    def section(self, target: str, score_name: str) -> dict[str, Any] | None:
        """The pictures and the table of a target; None where too few architectures have metrics that differ.

        Args:
            target: its name.
            score_name: what the score is.
        """
        found = correlate_metrics(self._records.get(target, []))
        if not found:
            return None
        shown = found[:MOST_METRICS]
        return {"rows": shown, "left_out": len(found) - len(shown), "drawing": metrics_svg(shown, score_name)}


def metrics_svg(metrics: Sequence[MetricCorrelation], score_name: str) -> str:
    """A panel for each metric, in which an architecture is a dot: the metric to the right, the score up.

    Args:
        metrics: at least one.
        score_name: of the vertical axes.

    Returns:
        An ``<svg>`` element.
    """
    rows = -(-len(metrics) // _COLUMNS)
    columns = min(_COLUMNS, len(metrics))
    width, height = 0.15 + columns * (_SIDE + _GAP), 0.1 + rows * (_SIDE + _GAP)
    with house_style():
        figure = new_figure(width, height)
        for k, metric in enumerate(metrics):
            row, column = divmod(k, _COLUMNS)
            left, foot = 0.15 + column * (_SIDE + _GAP) + _GAP - 0.1, height - (row + 1) * (_SIDE + _GAP) + _GAP - 0.2
            axes = figure.add_axes((left / width, foot / height, _SIDE / width, _SIDE / height))
            x, y = np.array(metric.values), np.array(metric.scores)
            axes.plot(x, y, "o", color=SERIES[0], markersize=3.6, markeredgewidth=0, alpha=0.7, gid="dots-0")
            axes.set_xlabel(shortened(metric.name, 26))
            if column == 0:
                axes.set_ylabel(shortened(score_name, 26))
            axes.locator_params(nbins=3)
            axes.ticklabel_format(useOffset=False)
            axes.set_title(f"{metric.correlation:.2f}", loc="right", color=INK, fontsize=9, pad=3)
            axes.grid(color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        return to_svg(figure, f"{score_name} against: {', '.join(metric.name for metric in metrics)}")
