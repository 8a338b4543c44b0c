"""The report's part on how children learned: what each logged epoch by epoch, and the best of each agent among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from search.reports.line_chart import Line, line_chart
from search.runs.journal import Record
from search.studies.experiment import Experiment

MOST_CHILDREN = 300
"""Children of a target that are drawn; the first ones of each agent."""
_LOSS = "train_loss"


@dataclass
class _Child:
    """One training.

    Attributes:
        history: what it logged.
        score: NaN where it failed.
        can_be_best: as `Record.can_be_best`.
    """

    history: list[dict[str, float]]
    score: float
    can_be_best: bool

    def line(self, metric: str, label: str = "", color: int = 0) -> Line:
        """What was logged, by epoch, from 1."""
        known = {k + 1: epoch[metric] for k, epoch in enumerate(self.history) if metric in epoch}
        return Line(label, list(known), list(known.values()), color=color, failed=math.isnan(self.score))


@dataclass
class _Target:
    by_agent: dict[str, list[_Child]] = field(default_factory=dict)

    def metric(self, score: str | None) -> str | None:
        """What to draw: the score's own metric where it was logged in more than one epoch, else the training loss."""
        children = [child for each in self.by_agent.values() for child in each]
        for name in (score, _LOSS):
            if name is not None and any(sum(name in epoch for epoch in child.history) > 1 for child in children):
                return name
        return None


class LearningCurves:
    """Collects what children logged, then draws it.

    Args:
        experiment: what the run's recipe describes.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._targets: dict[str, _Target] = {}

    def read(self, search: str, records: Sequence[Record]) -> None:
        """Keep the histories of a search on a target."""
        target, _, agent = search.partition("/")
        if target not in self.experiment.targets:
            return
        found = [record for record in records if record.evaluation.history]
        children = [_Child(each.evaluation.history, each.evaluation.score, each.can_be_best) for each in found]
        if children:
            self._targets.setdefault(target, _Target()).by_agent[agent] = children

    def drawing(self, target: str, colors: Mapping[str, int]) -> str:
        """The picture of a target as an ``<svg>`` element; empty where no child logged two epochs.

        Args:
            target: its name.
            colors: by agent, the place of its colour.
        """
        found = self._targets.get(target, _Target())
        metric = found.metric(getattr(self.experiment.targets[target], "score", None))
        return "" if metric is None else _draw(found, metric, colors)


def _draw(target: _Target, metric: str, colors: Mapping[str, int]) -> str:
    share = max(1, MOST_CHILDREN // len(target.by_agent))
    faint = [child.line(metric) for children in target.by_agent.values() for child in children[:share]]
    best = [
        max(good, key=lambda child: child.score).line(metric, agent, colors[agent])
        for agent, children in target.by_agent.items()
        if (good := [child for child in children if child.can_be_best])
    ]
    named = ", ".join(line.label for line in best) or "nobody"
    return line_chart(
        best,
        "epoch",
        metric,
        faint=faint,
        y_range=_range(faint, best),
        description=f"{metric} by epoch of {len(faint)} children; best of: {named}",
    )


def _range(faint: Sequence[Line], best: Sequence[Line]) -> tuple[float, float]:
    """Ends of the vertical axis: all of the best, and of the others what is not far out, as a loss that explodes is."""
    known = [[value for value in line.y if value is not None] for line in (*faint, *best)]
    values = np.concatenate(known)
    # No interpolation: it would go half of the way to a value that is far out.
    ends = [np.percentile(values, [2], method="higher"), np.percentile(values, [98], method="lower")]
    inner = np.concatenate([*ends, *known[len(faint) :]])
    low, high = float(inner.min()), float(inner.max())
    margin = 0.07 * (high - low) or 0.01 * abs(high) or 1.0
    return low - margin, high + margin
