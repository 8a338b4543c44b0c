"""Figures of points as SVG text: tasks in the space of contexts, and what was evaluated between two objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search.reports.svg import (
    DASHES,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    TINT,
    house_style,
    new_figure,
    plain_frame,
    shortened,
    style_of,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LONGEST_NAME = 46


@dataclass(frozen=True)
class Cloud:
    """The histories of one task in `contexts_svg`.

    Attributes:
        label: the task's name, stands in the key.
        points: float64 ``[n, 2]``, at least one.
        target: whether it is a target (named by a letter, drawn as a diamond) or a task practised on (a number).
    """

    label: str
    points: np.ndarray
    target: bool


def contexts_svg(clouds: Sequence[Cloud], explained: Sequence[float]) -> str:
    """Where tasks lie in the first two principal components of their contexts.

    Every task has a sign at its centroid, the same as in the key beside the axes. A few points may lie beyond these.

    Args:
        clouds: at least one.
        explained: share of the variance of each component ``[2]``.

    Returns:
        An ``<svg>`` element.
    """
    targets = [cloud for cloud in clouds if cloud.target]
    sources = [cloud for cloud in clouds if not cloud.target]
    signs = [_letter(k) for k in range(len(targets))] + [str(k + 1) for k in range(len(sources))]
    names = [shortened(cloud.label, _LONGEST_NAME) for cloud in (*targets, *sources)]
    line = 0.185
    key_width, left, bottom, top = 0.75 + 0.072 * max(map(len, names)), 0.65, 0.55, 0.15
    headings = bool(targets) + bool(sources)
    key_height = line * (len(names) + 1.25 * headings)
    inner_width, inner_height = 4.95, max(3.7, key_height)
    width, height = left + inner_width + key_width, inner_height + bottom + top
    with house_style():
        figure = new_figure(width, height)
        axes = figure.add_axes((left / width, bottom / height, inner_width / width, inner_height / height))
        styles = [
            (SERIES[k % len(SERIES)], "D" if k < len(targets) else MARKERS[(k - len(targets)) // len(SERIES) % 7])
            for k in range(len(names))
        ]
        for cloud, (color, marker) in zip((*targets, *sources), styles, strict=True):
            _dots(axes, cloud.points, color, marker, 4.2 if cloud.target else 3.6, 0.85 if cloud.target else 0.5)
        centroids = np.array([cloud.points.mean(0) for cloud in (*targets, *sources)])
        _frame(axes, np.concatenate([cloud.points for cloud in clouds]), centroids)
        _signs(axes, centroids, signs, [color for color, _ in styles], len(targets), (inner_width, inner_height))
        y = inner_height - line / 2
        for k, (sign, name, (color, marker)) in enumerate(zip(signs, names, styles, strict=True)):
            if k in (0, len(targets)):
                y -= 0.0 if k == 0 else 0.25 * line
                words = "Targets" if k < len(targets) else "Practised on"
                _key_text(axes, 0.2, y, words, (inner_width, inner_height), color=MUTED)
                y -= line
            place = ((inner_width + 0.27) / inner_width, y / inner_height)
            edge = INK if k < len(targets) else "none"
            axes.plot(
                *place, marker, transform=axes.transAxes, color=color, markeredgecolor=edge, markeredgewidth=0.7,
                markersize=5, clip_on=False, gid="key-0",
            )  # fmt: skip
            _key_text(axes, 0.4, y, sign, (inner_width, inner_height), weight="bold")
            _key_text(axes, 0.65, y, name, (inner_width, inner_height))
            y -= line
        axes.set_xlabel(f"first principal component ({explained[0]:.0%} of variance)")
        axes.set_ylabel(f"second principal component ({explained[1]:.0%} of variance)")
        plain_frame(axes)
        return to_svg(figure, f"Latent contexts of tasks: {'; '.join(cloud.label for cloud in clouds)}")


@dataclass(frozen=True)
class Explored:
    """What one agent evaluated, in `fronts_svg` and `search.reports.parallel_plot`.

    Attributes:
        label: stands in the key.
        points: float64 ``[n, objectives]``; of two objectives (horizontal, vertical).
        front: bool ``[n]``, which of the points are on the Pareto front.
        best: place of the point with the highest score among ``points``, or None.
        color: place in `SERIES`, counted round; further rounds have another marker and dash.
        feasible: bool ``[n]``, which of the points keep every limit; None for all.
    """

    label: str
    points: np.ndarray
    front: np.ndarray
    best: int | None
    color: int
    feasible: np.ndarray | None = None

    @property
    def broken(self) -> np.ndarray:
        """The points that break a limit."""
        return self.points[:0] if self.feasible is None else self.points[~self.feasible]


def fronts_svg(
    explored: Sequence[Explored],
    names: Sequence[str],
    directions: Sequence[str],
    true_front: np.ndarray | None = None,
    limits: Sequence[float | None] = (None, None),
) -> str:
    """What agents evaluated between two objectives, with the front of each.

    The axes show the surroundings of what was chosen: points far behind, and a front's far ends, are beyond.

    Args:
        explored: at least one agent with at least one point.
        names: of the horizontal and the vertical objective.
        directions: ``max`` or ``min`` for both.
        true_front: float64 ``[m, 2]``, the front of the whole space where it is known.
        limits: the worst values that will do, where there are any.

    Returns:
        An ``<svg>`` element.
    """
    from matplotlib.lines import Line2D

    labels = [shortened(each.label) for each in explored]
    left, bottom, top, inner_width, inner_height = 0.65, 0.55, 0.15, 5.6, 3.9
    right = 0.85 + 0.075 * max(len("the whole space's front"), *map(len, labels))
    width, height = left + inner_width + right, inner_height + bottom + top
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in directions])
    with house_style():
        figure = new_figure(width, height)
        axes = figure.add_axes((left / width, bottom / height, inner_width / width, inner_height / height))
        truth = np.zeros((0, 2)) if true_front is None else true_front * signs
        chosen = [each.points[each.best] * signs for each in explored if each.best is not None]
        worst, best = _visible_box(
            [each.points[each.front] * signs for each in explored], np.reshape(chosen, (-1, 2)), truth
        )
        bounds = np.array([math.nan if limit is None else limit for limit in limits]) * signs
        # A limit is seen where that costs at most half of the picture.
        worst = np.where(bounds > worst - (best - worst), np.fmin(worst, bounds - 0.25 * (best - worst)), worst)
        handles = []
        if len(truth):
            style = {"color": MUTED, "linewidth": 1.3, "linestyle": DASHES[2]}
            axes.plot(*(_staircase(truth, worst - (best - worst)) * signs).T, gid="truth-0", **style)
            handles.append(Line2D([], [], label="the whole space's front", **style))
        for each, label in zip(explored, labels, strict=True):
            color, marker, dash = style_of(each.color)
            _dots(axes, each.points if each.feasible is None else each.points[each.feasible], color, marker, 3.4, 0.45)
            if len(each.broken):
                axes.plot(
                    *each.broken.T, "x", color=color, markersize=3.6, markeredgewidth=0.9, alpha=0.6, gid="broken-0"
                )
            if each.front.any():
                steps = _staircase(each.points[each.front] * signs, worst - (best - worst)) * signs
                axes.plot(*steps.T, color=color, linewidth=1.5, linestyle=dash, gid="front-0")
            if each.best is not None:
                axes.plot(
                    *each.points[each.best], "*", color=color, markersize=13, markeredgecolor=PAPER,
                    markeredgewidth=0.8, zorder=4, gid="chosen-0",
                )  # fmt: skip
            handles.append(Line2D([], [], color=color, marker=marker, markersize=4, linestyle=dash, label=label))
        for set_ends, k in ((axes.set_xlim, 0), (axes.set_ylim, 1)):
            set_ends(*sorted((signs[k] * worst[k], signs[k] * best[k])))
        handles += [*key_of_signs(explored), *_draw_limits(axes, limits, directions)]
        axes.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9, labelcolor=INK,
            handlelength=2.4,
        )  # fmt: skip
        words = {"max": "higher is better", "min": "lower is better"}
        axes.set_xlabel(f"{shortened(names[0], 60)} ({words[directions[0]]})")
        axes.set_ylabel(f"{shortened(names[1], 45)} ({words[directions[1]]})")
        plain_frame(axes)
        what = f"{names[1]} against {names[0]} of what was evaluated"
        return to_svg(figure, f"{what}, by: {', '.join(each.label for each in explored)}")


# ---- parts of them -------------------------------------------------------------------------------------------------


def key_of_signs(explored: Sequence[Explored]) -> list[Line2D]:
    """What the key says of stars and, where something broke a limit, of crosses."""
    from matplotlib.lines import Line2D

    found = [Line2D([], [], color=MUTED, marker="*", markersize=10, linestyle="none", label="highest score")]
    if any(len(each.broken) for each in explored):
        found.append(Line2D([], [], color=MUTED, marker="x", markersize=4, linestyle="none", label="breaks a limit"))
    return found


def _draw_limits(axes: Axes, limits: Sequence[float | None], directions: Sequence[str]) -> list[Line2D]:
    """A line at each limit and a tint over what breaks it; what the key says of that."""
    from matplotlib.lines import Line2D

    edge: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": DASHES[1]}
    tint: dict[str, Any] = {"color": TINT, "linewidth": 0, "zorder": 0}
    if limits[0] is not None:
        axes.axvline(limits[0], gid="limit-0", **edge)
        axes.axvspan(limits[0], axes.get_xlim()[directions[0] == "min"], **tint)
    if limits[1] is not None:
        axes.axhline(limits[1], gid="limit-0", **edge)
        axes.axhspan(limits[1], axes.get_ylim()[directions[1] == "min"], **tint)
    if limits[0] is None and limits[1] is None:
        return []
    return [Line2D([], [], label="limit", **edge)]


def _dots(axes: Axes, points: np.ndarray, color: str, marker: str, size: float, opacity: float) -> None:
    axes.plot(
        *points.T,
        marker,
        color=color,
        markersize=size,
        markeredgewidth=0,
        alpha=opacity,
        linestyle="none",
        gid="dots-0",
    )


def _frame(axes: Axes, points: np.ndarray, centroids: np.ndarray) -> None:
    """Axes that hold the centroids and, on each axis, all but the outermost hundredth of the points at either end."""
    low, high = np.quantile(points, [0.01, 0.99], axis=0)
    low, high = np.minimum(low, centroids.min(0)), np.maximum(high, centroids.max(0))
    margin = np.where(high > low, 0.06 * (high - low), 0.5)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _visible_box(fronts: Sequence[np.ndarray], chosen: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Worst and best visible corner ``[2]`` of points that are oriented so that higher is better.

    A front's ends are where one objective is given up for the other, and may be far away. So the corners are set by
    what was chosen between the objectives; what lies as far behind as these differ from the best is still visible.

    Args:
        fronts: of each agent, ``[n, 2]``.
        chosen: points of the highest score, ``[agents, 2]``.
        truth: the whole space's front, ``[m, 2]``, without points where it is not known.
    """
    points = np.concatenate([*fronts, chosen]) if len(fronts) + len(chosen) else np.zeros((1, 2))
    least, best = points.min(0), points.max(0)
    behind = chosen.min(0) if len(chosen) else least
    worst = np.maximum(least, behind - np.maximum(best - behind, 0.1 * (best - least)))
    if len(seen := truth[(truth >= worst).all(1)]):
        best = np.maximum(best, seen.max(0))
    span = np.where(best > worst, best - worst, np.maximum(np.abs(best), 1.0) * 0.1)
    return worst - 0.07 * span, best + 0.05 * span


def _staircase(front: np.ndarray, worst: np.ndarray) -> np.ndarray:
    """Corners ``[2 m + 1, 2]`` of the border of what a front dominates; higher is better, ``worst`` is out of sight."""
    front = front[np.lexsort((front[:, 1], -front[:, 0]))]
    corners = [(front[0, 0], min(worst[1], front[0, 1]))]
    for k, (x, y) in enumerate(front):
        corners += [(x, y), (front[k + 1, 0] if k + 1 < len(front) else min(worst[0], x), y)]
    return np.array(corners)


def _key_text(
    axes: Axes, x: float, y: float, words: str, inner: tuple[float, float], color: str = INK, weight: str = "normal"
) -> None:
    """Text beside the axes, at inches to the right of them and above their foot."""
    axes.text(
        (inner[0] + x) / inner[0], y / inner[1], words, transform=axes.transAxes, va="center", fontsize=8.8,
        color=color, weight=weight,
    )  # fmt: skip


def _letter(k: int) -> str:
    return _LETTERS[k % 26] if k < 26 else f"{_LETTERS[k // 26 - 1]}{_LETTERS[k % 26]}"


def _signs(
    axes: Axes,
    centroids: np.ndarray,
    signs: Sequence[str],
    colors: Sequence[str],
    targets: int,
    inner: tuple[float, float],
) -> None:
    """Each task's sign at its centroid, or as near as the others let it."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    scale = np.array([inner[0] / (x1 - x0), inner[1] / (y1 - y0)])
    inches = (centroids - (x0, y0)) * scale
    places = _apart(inches, np.array([0.25, 0.19]), np.array(inner)) / scale + (x0, y0)
    for k, (place, centroid, sign, color) in enumerate(zip(places, centroids, signs, colors, strict=True)):
        if np.abs((place - centroid) * scale).max() > 0.06:
            axes.plot(*np.stack([centroid, place]).T, color=color, linewidth=0.9, zorder=4, gid="leader-0")
        box = {"boxstyle": "round,pad=0.22", "facecolor": PAPER, "edgecolor": color, "linewidth": 1.2}
        if k < targets:
            box |= {"edgecolor": INK, "linewidth": 1.4}
        axes.text(
            place[0], place[1], sign, ha="center", va="center", fontsize=8.2, weight="bold", color=INK, bbox=box,
            zorder=6 if k < targets else 5, gid="sign-0",
        )  # fmt: skip


def _apart(places: np.ndarray, size: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Boxes of one size, none over another, each as near to its place as those before it let it.

    Args:
        places: their middles, float64 ``[n, 2]``.
        size: width and height.
        limits: middles stay within (0, 0) and this.
    """
    # A spiral of places to try, dense enough that a gap between boxes is not stepped over.
    turn = np.arange(4000) * 2.399963  # the golden angle: no direction is preferred
    spiral = 0.03 * np.sqrt(np.arange(4000))[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    placed: list[np.ndarray] = []
    for place in places:
        tries = np.clip(place + spiral, 0.0, limits)
        taken = np.reshape(placed, (-1, 1, 2))
        free = ~(np.abs(tries - taken) < size).all(-1).any(0)
        placed.append(tries[free.argmax()])  # the first free one; its own place where there is none
    return np.array(placed)
