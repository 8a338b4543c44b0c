"""Three or more objectives at once as SVG text: an axis each, side by side, and a line for everything evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.reports.scatter_plots import Explored, key_of_signs
from search.reports.svg import (
    DASHES,
    INK,
    MUTED,
    PAPER,
    TINT,
    house_style,
    new_figure,
    shortened,
    style_of,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES = 100
"""Lines of an agent that are drawn faintly: the first ones of those that are not on its front."""


def parallel_svg(
    explored: Sequence[Explored], names: Sequence[str], directions: Sequence[str], limits: Sequence[float | None]
) -> str:
    """Parallel coordinates (Inselberg, 1985): better is up on every axis, so a line above another dominates it.

    What lies far from the fronts leaves the picture at the foot or the head of an axis.

    Args:
        explored: at least one agent with at least one point.
        names: of the objectives, from left to right.
        directions: ``max`` or ``min`` for each.
        limits: the worst value that will do of each, where there is one.

    Returns:
        An ``<svg>`` element.
    """
    from matplotlib.lines import Line2D

    labels, count = [shortened(each.label) for each in explored], len(names)
    left, bottom, top, height = 0.75, 0.3, 0.62, 4.75
    right = 1.0 + 0.075 * max(len("highest score"), *map(len, labels))
    inner_width, inner_height = max(5.2, 1.45 * (count - 1)), height - bottom - top
    width = left + inner_width + right
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in directions])
    low, high = _ends(explored, signs, np.array([math.nan if limit is None else limit for limit in limits]) * signs)
    with house_style():
        figure = new_figure(width, height)
        axes = figure.add_axes((left / width, bottom / height, inner_width / width, inner_height / height))
        axes.set_xlim(0, count - 1)
        axes.set_ylim(0, 1)
        axes.axis("off")
        for k, name in enumerate(names):
            limit = limits[k]
            share = None if limit is None else float((limit * signs[k] - low[k]) / (high[k] - low[k]))
            _axis(axes, k, low[k] * signs[k], high[k] * signs[k], share)
            side = "left" if k == 0 else "right" if k == count - 1 else "center"
            place = k - (0.3 if k == 0 else -0.3 if k == count - 1 else 0.0) / inner_width * (count - 1)
            axes.text(place, 1.115, shortened(name, 24), ha=side, va="center", color=INK, fontsize=9.5)
            words = "higher is better" if directions[k] == "max" else "lower is better"
            axes.text(place, 1.055, words, ha=side, va="center", color=MUTED, fontsize=8)
        handles = []
        for each, label in zip(explored, labels, strict=True):
            color, marker, dash = style_of(each.color)
            rows = (each.points * signs - low) / (high - low)
            feasible = np.ones(len(rows), dtype=bool) if each.feasible is None else each.feasible
            _lines(axes, rows[feasible & ~each.front][:_MOST_LINES], color, 0.6, 0.16, "solid", "behind-0")
            _lines(axes, rows[~feasible][:_MOST_LINES], color, 0.7, 0.25, DASHES[2], "broken-0")
            _lines(axes, rows[each.front], color, 1.2, 0.75, dash, "front-0")
            if each.best is not None:
                _lines(axes, rows[each.best][None], color, 2.4, 1.0, dash, "chosen-0")
                axes.plot(
                    range(count), rows[each.best], "*", color=color, markersize=12, markeredgecolor=PAPER,
                    markeredgewidth=0.8, clip_on=False, zorder=4, gid="star-0",
                )  # fmt: skip
            handles.append(Line2D([], [], color=color, marker=marker, markersize=0, linestyle=dash, label=label))
        for key in key_of_signs(explored):
            if key.get_marker() == "x":  # dots in the picture of two objectives, here lines
                key.set(marker="", linestyle=DASHES[2], linewidth=1.2)
            handles.append(key)
        if any(limit is not None for limit in limits):
            handles.append(Line2D([], [], color=INK, marker="_", markersize=9, linestyle="none", label="limit"))
        axes.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1.0 + 0.55 / inner_width, 1.02), frameon=False,
            fontsize=9, labelcolor=INK, handlelength=2.2, borderaxespad=0.0,
        )  # fmt: skip
        what = f"{', '.join(names)} of what was evaluated"
        return to_svg(figure, f"{what}, by: {', '.join(each.label for each in explored)}")


def _ends(explored: Sequence[Explored], signs: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The foot and the head of each axis ``[objectives]``, where higher is better.

    All that was evaluated is between them, and the limits, but nothing further beyond the fronts than these are long.
    """
    every = np.concatenate([each.points * signs for each in explored])
    fronts = np.concatenate([each.points[each.front] * signs for each in explored])
    shown = fronts if len(fronts) else every
    low, high = shown.min(0), shown.max(0)
    span = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0) * 0.1)
    least, most = np.fmin(every.min(0), limits - 0.1 * span), np.fmax(every.max(0), limits)
    return np.maximum(least, low - span) - 0.04 * span, np.minimum(most, high + span) + 0.04 * span


def _axis(axes: Axes, place: int, foot: float, head: float, limit: float | None) -> None:
    """One upright axis with its ticks, and what lies below a limit tinted.

    Args:
        axes: from 0 to 1 upwards.
        place: where on the horizontal axis.
        foot: value at the lower end.
        head: value at the upper end.
        limit: where between the two the limit is, as a share, if there is one.
    """
    from matplotlib.ticker import MaxNLocator

    width = 0.02 * (axes.get_xlim()[1] or 1.0)
    if limit is not None:
        share = min(max(limit, 0.0), 1.0)
        axes.fill(
            place + np.array([-width, width, width, -width]), [0.0, 0.0, share, share], color=TINT, clip_on=False,
            zorder=0.5, linewidth=0,
        )  # fmt: skip
        axes.plot(
            [place - width, place + width], [share, share], color=INK, linewidth=1.8, clip_on=False, zorder=3,
            gid="limit-0",
        )  # fmt: skip
    axes.plot([place, place], [0, 1], color=MUTED, linewidth=0.9, clip_on=False, zorder=1, gid="axis-0")
    values = [each for each in MaxNLocator(nbins=5).tick_values(*sorted((foot, head))) if _inside(each, foot, head)]
    for value in values:
        height = (value - foot) / (head - foot)
        axes.plot([place - width / 4, place], [height, height], color=MUTED, linewidth=0.9, clip_on=False, gid="tick-0")
        axes.text(
            place - width / 2, height, f"{value + 0.0:.6g}", ha="right", va="center", color=MUTED, fontsize=8.5,
            zorder=5, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )  # fmt: skip


def _inside(value: float, foot: float, head: float) -> bool:
    return min(foot, head) <= value <= max(foot, head)


def _lines(axes: Axes, rows: np.ndarray, color: str, width: float, opacity: float, dash: Any, gid: str) -> None:
    """All rows ``[n, objectives]`` as one path with gaps."""
    if len(rows):
        gap = np.full((len(rows), 1), np.nan)
        places = np.tile(np.append(np.arange(rows.shape[1], dtype=float), np.nan), len(rows))
        axes.plot(
            places, np.hstack([rows, gap]).ravel(), color=color, linewidth=width, alpha=opacity, linestyle=dash, gid=gid
        )
