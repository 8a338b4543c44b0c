"""Figures of a study of supernets as SVG text: how rankings grew, and supernet scores against stand-alone worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from search.reports.line_chart import Line, line_chart
from search.reports.svg import INK, MUTED, PAPER, SERIES, house_style, new_figure, plain_frame, shortened, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS_A_ROW = 3


@dataclass(frozen=True)
class Ranking:
    """What one trained supernet says of architectures, against what they are worth.

    Attributes:
        label: heads the panel.
        measured: float64 ``[n, 2]``, (stand-alone worth, supernet score).
        added: bool ``[n]``, which of them have become landmarks and are no longer counted.
        found: float64 ``[m, 2]``, the same of what the method returned.
        landmarks: float64 ``[k]``, stand-alone worth of its landmarks.
        color: place in `SERIES`, counted round.
    """

    label: str
    measured: np.ndarray
    added: np.ndarray
    found: np.ndarray
    landmarks: np.ndarray
    color: int


# ---- how rankings grew ---------------------------------------------------------------------------------------------


def courses_svg(courses: Sequence[Line], references: Mapping[str, float], begin: int | None = None) -> str:
    """S-KdT over epochs, one line a method.

    Args:
        courses: at least one; x are the epochs after which it was measured.
        references: rankings that need no training, drawn as dotted lines across.
        begin: the epoch from which on landmarks weigh in, drawn as a vertical line.

    Returns:
        An ``<svg>`` element.
    """
    low, high = visible_range(courses, list(references.values()))
    last = max(course.x[-1] for course in courses)
    return line_chart(
        [replace(course, interval=[_within(each, low, high) for each in course.interval]) for course in courses],
        "epochs",
        "S-KdT",
        levels=references,
        begins={"landmarks weigh in": begin} if begin is not None and 0 < begin < last else {},
        x_range=(0, last),
        y_range=(low, high),
        points=True,
        height=3.2,
    )


def _within(interval: Sequence[float] | None, low: float, high: float) -> Sequence[float] | None:
    """None for an interval that would shade everything and say nothing."""
    if interval is None or (interval[0] <= max(low, -1) and interval[1] >= min(high, 1)):
        return None
    return interval


def visible_range(courses: Sequence[Line], references: Sequence[float]) -> tuple[float, float]:
    """Ends of the vertical axis: every mean is inside, and of the intervals as much as leaves means apart.

    With two trials an interval may be many times as wide as all differences, so it may leave the axis: this reaches
    beyond the means by half of what these span, or by 0.15.
    """
    means = [*references, *(value for course in courses for value in _known(course.y))]
    if not means:
        return -1.0, 1.0
    ends = [end for course in courses for interval in course.interval for end in interval or ()]
    room = max(0.5 * (max(means) - min(means)), 0.15)
    low = max(min([*means, *ends]), min(means) - room, -1.0)
    high = min(max([*means, *ends]), max(means) + room, 1.0)
    margin = max(0.05 * (high - low), 0.01)
    return low - margin, high + margin


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


# ---- supernet scores against worth ---------------------------------------------------------------------------------


def rankings_svg(rankings: Sequence[Ranking], truth_name: str) -> str:
    """Supernet score against stand-alone worth, a panel a method.

    Points far from the others would press these together; they stand as arrows at the edge.

    Args:
        rankings: at least one, each with at least one point.
        truth_name: what the worth is, with its unit.

    Returns:
        An ``<svg>`` element.
    """
    columns = min(len(rankings), _PANELS_A_ROW)
    rows = math.ceil(len(rankings) / columns)
    panel_width, panel_height = (2.35, 2.1) if columns == _PANELS_A_ROW else (3.3, 2.6)
    left, gap, bottom, between, top = 0.75, 0.6, 0.55, 0.72, 0.72
    width = left + columns * panel_width + (columns - 1) * gap + 0.1
    height = bottom + rows * panel_height + (rows - 1) * between + top
    worth = _inner_range(np.concatenate([np.r_[each.measured[:, 0], each.found[:, 0]] for each in rankings]))
    with house_style():
        figure = new_figure(width, height)
        for k, ranking in enumerate(rankings):
            row, column = divmod(k, columns)
            x = left + column * (panel_width + gap)
            y = height - top - panel_height - row * (panel_height + between)
            axes = figure.add_axes((x / width, y / height, panel_width / width, panel_height / height))
            _draw_ranking(axes, ranking, worth)
        figure.text(left / width, 0.1 / height, f"stand-alone: {shortened(truth_name, 70)}", color=INK, fontsize=9.5)
        figure.text(
            0.1 / width, (bottom + (height - top - bottom) / 2) / height, "score with shared weights",
            color=INK, fontsize=9.5, rotation=90, va="center",
        )  # fmt: skip
        figure.legend(
            handles=_key(rankings), loc="upper left", bbox_to_anchor=((left - 0.1) / width, 1), ncols=4, frameon=False,
            fontsize=8.8, labelcolor=INK, handletextpad=0.3, columnspacing=1.4, borderaxespad=0.1,
        )  # fmt: skip
        names = ", ".join(each.label for each in rankings)
        return to_svg(figure, f"Score with shared weights against stand-alone {truth_name}, of: {names}")


def _draw_ranking(axes: Axes, ranking: Ranking, worth: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    color = SERIES[ranking.color % len(SERIES)]
    scores = _inner_range(np.r_[ranking.measured[:, 1], ranking.found[:, 1]])
    axes.set_xlim(*_widened(worth))
    axes.set_ylim(*_widened(scores))
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.9}
    for points, gid, style in (
        (ranking.measured[~ranking.added], "dots-0", {"markeredgewidth": 0, "alpha": 0.55}),
        (ranking.measured[ranking.added], "added-0", ring),
    ):
        _draw_points(axes, points, worth, scores, gid, color=color, markersize=4.2, **style)
    star: dict[str, Any] = {"markersize": 11, "markeredgecolor": PAPER, "markeredgewidth": 0.7}
    inside = np.clip(ranking.found, (worth[0], scores[0]), (worth[1], scores[1]))
    axes.plot(*inside.T, "*", color=INK, zorder=4, clip_on=False, gid="found-0", **star)
    if len(ranking.landmarks):
        at = np.clip(ranking.landmarks, *worth)
        axes.plot(
            at, np.zeros(len(at)), "|", transform=axes.get_xaxis_transform(), color=INK, markersize=9,
            markeredgewidth=0.9, clip_on=False, gid="landmarks-0",
        )  # fmt: skip
    axes.set_title(shortened(ranking.label, 40), loc="left", fontsize=9.5, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    plain_frame(axes)


def _draw_points(
    axes: Axes,
    points: np.ndarray,
    worth: tuple[float, float],
    scores: tuple[float, float],
    gid: str,
    **style: Any,
) -> None:
    """Points as dots, those beyond the range as arrows at its edge."""
    inside = np.clip(points, (worth[0], scores[0]), (worth[1], scores[1]))
    moved = points - inside
    kinds = {"<": moved[:, 0] < 0, ">": moved[:, 0] > 0, "v": moved[:, 1] < 0, "^": moved[:, 1] > 0}
    left_over = np.ones(len(points), dtype=bool)
    for marker, which in kinds.items():
        chosen = which & left_over
        left_over &= ~which
        if chosen.any():
            axes.plot(*inside[chosen].T, marker, linestyle="none", clip_on=False, gid="beyond-0", **style)
    if left_over.any():
        axes.plot(*inside[left_over].T, "o", linestyle="none", gid=gid, **style)


def _inner_range(values: np.ndarray) -> tuple[float, float]:
    """Ends of the values but for outliers: those further from the middle half than thrice its width (Tukey, 1977)."""
    low, high = np.quantile(values, [0.25, 0.75])
    reach = 3 * (high - low) if high > low else math.inf
    inner = values[(values >= low - reach) & (values <= high + reach)]
    return float(inner.min()), float(inner.max())


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    margin = 0.05 * (ends[1] - ends[0]) or 0.05 * abs(ends[0]) or 0.5
    return ends[0] - margin, ends[1] + margin


def _key(rankings: Sequence[Ranking]) -> list[Any]:
    from matplotlib.lines import Line2D

    def line(marker: str, label: str, **style: Any) -> Line2D:
        return Line2D([], [], linestyle="none", marker=marker, label=label, **({"color": INK} | style))

    handles = [line("o", "measured", color=MUTED, markersize=4.2)]
    if any(len(each.found) for each in rankings):
        handles.append(line("*", "returned by the method", markersize=9, markeredgewidth=0))
    if any(len(each.landmarks) for each in rankings):
        handles.append(line("|", "worth of a landmark", markersize=9))
    if any(each.added.any() for each in rankings):
        handles.append(line("o", "became a landmark", markersize=4.2, markerfacecolor="none"))
    return handles
