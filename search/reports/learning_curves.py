"""The report's part on how children learned: what each logged epoch by epoch, and the best of each agent among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from search.reports.svg import (
    DASHES,
    INK,
    MUTED,
    SERIES,
    house_style,
    new_figure,
    shortened,
    style_course,
    to_svg,
)
from search.runs.journal import Record
from search.studies.experiment import Experiment
from search.tasks.objectives import feasible_score

MOST_CHILDREN = 300
"""Children of a target that are drawn; the first ones of each agent."""
_LOSS = "train_loss"


@dataclass
class _Child:
    """One training.

    Attributes:
        history: what it logged.
        score: NaN where it failed, or broke the limit of an objective.
    """

    history: list[dict[str, float]]
    score: float


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
        objectives = self.experiment.targets[target].objectives
        children = [
            _Child(each.evaluation.history, feasible_score(each.evaluation, objectives))
            for each in records
            if each.evaluation.history
        ]
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
    faint = [child for children in target.by_agent.values() for child in children[:share]]
    best = {
        agent: max(good, key=lambda child: child.score)
        for agent, children in target.by_agent.items()
        if (good := [child for child in children if not math.isnan(child.score)])
    }
    names = {agent: shortened(agent) for agent in best}
    right = 0.35 + 0.083 * max(map(len, names.values()), default=0)
    inner_width, inner_height, left, bottom, top = 5.95, max(2.9, 0.2 * len(names)), 0.65, 0.5, 0.5
    width, height = left + inner_width + right, inner_height + bottom + top
    with house_style():
        figure = new_figure(width, height)
        axes = figure.add_axes((left / width, bottom / height, inner_width / width, inner_height / height))
        low, high = _range(faint, list(best.values()), metric)
        axes.set_ylim(low, high)
        longest = max(len(child.history) for child in (*faint, *best.values()))
        axes.set_xlim(1 - 0.02 * longest, longest)
        for child in faint:
            x, y = _line(child, metric)
            axes.plot(x, y, color=MUTED, linewidth=0.8, alpha=0.35, gid="child-0")
            if math.isnan(child.score) and len(x):
                axes.plot(x[-1:], y[-1:], "x", color=MUTED, markersize=5, gid="failed-0")
        ends = {agent: _line(child, metric)[1][-1] for agent, child in best.items()}
        places = _apart(ends, gap=(high - low) * 0.175 / inner_height)
        for agent, child in best.items():
            place = colors[agent]
            color, dash = SERIES[place % len(SERIES)], DASHES[place // len(SERIES) % len(DASHES)]
            x, y = _line(child, metric)
            axes.plot(x, y, color=color, linewidth=1.8, linestyle=dash, gid="best-0")
            shift = longest + (longest - 1) * 0.16 / inner_width
            axes.plot([x[-1], shift], [ends[agent], places[agent]], color=color, linewidth=0.7, clip_on=False)
            axes.text(shift, places[agent], f" {names[agent]}", va="center", color=INK, fontsize=9.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric, rotation=0, ha="left", va="bottom")
        axes.yaxis.set_label_coords(-0.6 / inner_width, 1 + 0.2 / inner_height)
        style_course(axes)
        return to_svg(figure, f"{metric} by epoch of {len(faint)} children; best of: {', '.join(best) or 'nobody'}")


def _line(child: _Child, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, from 1, and what was logged in them."""
    known = [(k + 1, epoch[metric]) for k, epoch in enumerate(child.history) if metric in epoch]
    points = np.array(known, dtype=np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def _range(faint: Sequence[_Child], best: Sequence[_Child], metric: str) -> tuple[float, float]:
    """Ends of the vertical axis: all of the best, and of the others what is not far out, as a loss that explodes is."""
    values = np.concatenate([_line(child, metric)[1] for child in (*faint, *best)])
    # No interpolation: it would go half of the way to a value that is far out.
    ends = [np.percentile(values, [2], method="higher"), np.percentile(values, [98], method="lower")]
    inner = np.concatenate([*ends, *(_line(child, metric)[1] for child in best)])
    low, high = float(inner.min()), float(inner.max())
    margin = 0.07 * (high - low) or 0.01 * abs(high) or 1.0
    return low - margin, high + margin


def _apart(ends: Mapping[str, float], gap: float) -> dict[str, float]:
    """Where names stand beside the ends of their lines, none nearer to the next than the gap."""
    places: dict[str, float] = {}
    for agent in sorted(ends, key=lambda agent: ends[agent]):
        below = list(places.values())[-1:]
        places[agent] = max([ends[agent], *(each + gap for each in below)])
    return places
