"""Line charts as SVG text: every line named at its end, with its interval as a band.

A pure function of plain data, by matplotlib's object-oriented interface; the same input gives the same text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search.reports.svg import (
    DASHES,
    GRID,
    INK,
    MUTED,
    SERIES,
    house_style,
    new_figure,
    shortened,
    style_of,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 400
_DOTTED = (0, (1, 2.2))
_WIDTH, _LEFT, _BOTTOM, _TOP = 5.95, 0.65, 0.5, 0.5
"""Of the axes, and around them, in inches; to the right stand the names."""


@dataclass(frozen=True)
class Line:
    """One line of `line_chart`.

    Attributes:
        label: stands at the line's end.
        x: ascending.
        y: a value for each x; None or NaN where there is none.
        interval: (low, high) for each x, or None where there is none; empty for a line without a band.
        color: place in `SERIES`, counted round; further rounds have another dash and marker.
        failed: whether a cross ends it.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    interval: Sequence[Sequence[float] | None] = ()
    color: int = 0
    failed: bool = False

    @property
    def known(self) -> list[tuple[float, float]]:
        """The points that there are."""
        return [(x, y) for x, y in zip(self.x, finite(self.y), strict=True) if not math.isnan(y)]


def mean_line(label: str, x: Sequence[float], values: np.ndarray, color: int) -> Line:
    """The mean over trials, with the interval of two standard errors.

    Args:
        label: stands at the line's end.
        x: ascending.
        values: of each trial at each x, ``[trials, len(x)]``; of two trials at least.
        color: place in `SERIES`.
    """
    mean, error = values.mean(0), 2 * values.std(0, ddof=1) / len(values) ** 0.5
    return Line(label, x, mean.tolist(), np.stack([mean - error, mean + error], 1).tolist(), color=color)


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    faint: Sequence[Line] = (),
    levels: Mapping[str, float] | None = None,
    begins: Mapping[str, float] | None = None,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    steps: bool = False,
    points: bool = False,
    height: float = 2.9,
    description: str = "",
) -> str:
    """Lines in one axis, each named at its end.

    Args:
        lines: what is to be read; there may be none where there are faint ones.
        x_label: of the horizontal axis, with its unit.
        y_label: of the vertical axis, with its unit.
        faint: lines without a name behind these, such as all of which these are the best.
        levels: drawn as dotted lines across, each named; one outside of the axis is named only.
        begins: drawn as vertical lines, each named at its top, where something begins.
        x_range: ends of the horizontal axis; None for the first and the last x.
        y_range: ends of the vertical axis; None for what shows everything.
        steps: a value holds until the next one.
        points: mark every point, not only the last.
        height: of the axes, in inches; they grow with the number of names.
        description: what the chart shows, for who can't see it; empty for the labels.

    Returns:
        An ``<svg>`` element.
    """
    names = [shortened(line.label) for line in lines]
    names += [f"{shortened(name)}{_beyond(value, y_range)}" for name, value in (levels or {}).items()]
    inner_height = max(height, 0.2 * len(names) + 0.1)
    full_width = _LEFT + _WIDTH + 0.35 + 0.083 * max(map(len, names), default=0)
    full_height = _BOTTOM + inner_height + _TOP
    with house_style():
        figure = new_figure(full_width, full_height)
        axes = figure.add_axes(
            (_LEFT / full_width, _BOTTOM / full_height, _WIDTH / full_width, inner_height / full_height)
        )
        x_range = x_range or _x_range([*lines, *faint])
        axes.set_xlim(*x_range)
        if y_range is not None:
            axes.set_ylim(*y_range)
        for line in faint:
            _draw_faint(axes, line)
        for line in lines:
            _draw_line(axes, line, steps, points, opacity=0.14 if len(lines) < 5 else 0.08)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high)
        for value in (levels or {}).values():
            if low <= value <= high:
                axes.axhline(value, color=MUTED, linestyle=_DOTTED, linewidth=1.3, gid="level-0")
        for name, x in (begins or {}).items():
            axes.axvline(x, color=MUTED, linestyle=DASHES[1], linewidth=0.8, gid="begin-0")
            axes.annotate(
                shortened(name), (x, 1), xycoords=("data", "axes fraction"), xytext=(3, -9),
                textcoords="offset points", fontsize=8.5, color=MUTED,
            )  # fmt: skip
        ends = [line.known[-1] if line.known else (x_range[1], low) for line in lines]
        ends += [(x_range[1], min(max(value, low), high)) for value in (levels or {}).values()]
        colors = [SERIES[line.color % len(SERIES)] for line in lines] + [MUTED] * (len(names) - len(lines))
        _name_ends(axes, names, ends, colors, gap=(high - low) * 0.185 / inner_height)
        axes.set_xlabel(x_label)
        # Above the axis, not beside it: names of scores are longer than the axis is high.
        axes.set_ylabel(shortened(y_label, 90), rotation=0, ha="left", va="bottom")
        axes.yaxis.set_label_coords(-0.6 / _WIDTH, 1 + 0.2 / inner_height)
        _style(axes)
        named = ", ".join([*(line.label for line in lines), *(levels or {})])
        return to_svg(figure, description or f"{y_label} over {x_label}, of: {named}")


def finite(values: Sequence[float | None]) -> list[float]:
    """The values, with NaN for what is none or can't be drawn."""
    return [math.nan if value is None or not math.isfinite(value) else float(value) for value in values]


def _x_range(lines: Sequence[Line]) -> tuple[float, float]:
    """From the first x to the last, with a little room before the first point."""
    drawn = [line.x for line in lines if len(line.x)]
    first, last = min((x[0] for x in drawn), default=0), max((x[-1] for x in drawn), default=1)
    last = max(last, first + 1)
    return first - 0.015 * (last - first), last


def _beyond(value: float, y_range: tuple[float, float] | None) -> str:
    if y_range is None or y_range[0] <= value <= y_range[1]:
        return ""
    return " (above the axis)" if value > y_range[1] else " (below the axis)"


def _draw_faint(axes: Axes, line: Line) -> None:
    x, y = np.array(line.known, dtype=np.float64).reshape(-1, 2).T
    axes.plot(x, y, color=MUTED, linewidth=0.8, alpha=0.35, gid="faint-0")
    if line.failed and len(x):
        axes.plot(x[-1:], y[-1:], "x", color=MUTED, markersize=5, gid="failed-0")


def _draw_line(axes: Axes, line: Line, steps: bool, points: bool, opacity: float) -> None:
    color, marker, dash = style_of(line.color)
    shown = np.unique(np.linspace(0, len(line.x) - 1, min(len(line.x), _MOST_POINTS)).round().astype(int))
    x, y = np.array(line.x, dtype=np.float64)[shown], np.array(finite(line.y))[shown]
    if any(each is not None for each in line.interval):
        none = (math.nan, math.nan)
        low, high = np.array([none if each is None else tuple(each) for each in line.interval], dtype=float)[shown].T
        if len(x) > 1:
            step: Any = "post" if steps else None
            axes.fill_between(x, low, high, step=step, color=color, alpha=opacity, linewidth=0, gid="band-0")
        else:
            axes.plot(x.repeat(2), [low[0], high[0]], color=color, linewidth=1.2, alpha=0.6, gid="band-0")
    style: Any = {"linestyle": dash, "drawstyle": "steps-post" if steps else "default"}
    axes.plot(x, y, color=color, linewidth=1.9, gid="curve-0", **style)
    if points:
        axes.plot(x, y, marker, color=color, markersize=4, clip_on=False, gid="points-0")
    elif line.known:
        axes.plot(*line.known[-1], "o", color=color, markersize=3.5, clip_on=False, gid="end-0")


def _name_ends(
    axes: Axes, names: Sequence[str], ends: Sequence[tuple[float, float]], colors: Sequence[str], gap: float
) -> None:
    """A name beside the end of each line, and a thin line that leads there."""
    (first, last), (low, high) = axes.get_xlim(), axes.get_ylim()
    beside = last + (last - first) * 0.16 / _WIDTH
    places = _spread([y for _, y in ends], gap, low, high)
    for name, (x, y), place, color in zip(names, ends, places, colors, strict=True):
        axes.plot([x, beside], [y, place], color=color, linewidth=0.7, clip_on=False, gid="leader-0")
        ink = MUTED if color == MUTED else INK
        axes.text(beside, place, f" {name}", va="center", color=ink, fontsize=9.5, gid="name-0")
    axes.set_xlim(first, last)


def _spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places nearest to ``values``, in their order, at least ``gap`` apart and within the axis where they fit.

    Least squares under a least distance is isotonic regression of the values less their order's share of it.
    """
    order = sorted(range(len(values)), key=lambda k: values[k])
    blocks: list[list[float]] = []  # sum and count of labels that touch
    for rank, k in enumerate(order):
        blocks.append([values[k] - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    level = [total / count for total, count in blocks for _ in range(int(count))]
    highest = max(high - (len(values) - 1) * gap, low)
    spread = [0.0] * len(values)
    for rank, k in enumerate(order):
        spread[k] = min(max(level[rank], low), highest) + rank * gap
    return spread


def _style(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
