"""Figures as SVG text: curves with bands, and architectures as graphs.

Pure functions of plain data, by matplotlib's object-oriented interface; the same input gives the same text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from search.reports.svg import (
    DASHES,
    INK,
    MUTED,
    PAPER,
    SERIES,
    TINT,
    house_style,
    new_figure,
    shortened,
    style_course,
    to_svg,
)
from search.spaces.base import Edge

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """One line of `curves_svg`.

    Attributes:
        label: stands at the line's end.
        mean: a value for each evaluation, the first one's first; None or NaN where there is none yet.
        interval: (low, high) for each evaluation, or None where there is none; empty for a line without a band.
        color: place in `SERIES`, counted round.
        dash: place among the dash patterns, counted round.
    """

    label: str
    mean: Sequence[float | None]
    interval: Sequence[Sequence[float] | None] = ()
    color: int = 0
    dash: int = 0


def curves_svg(curves: Sequence[Curve], score_name: str, best_possible: float | None = None) -> str:
    """Best score so far over evaluations, all curves in one axis, each named at its end.

    Args:
        curves: at least one.
        score_name: label of the vertical axis, with its unit.
        best_possible: drawn as a dotted line, where known.

    Returns:
        An ``<svg>`` element.
    """
    names = [shortened(curve.label) for curve in curves]
    right = 0.35 + 0.083 * max(map(len, names))
    width, height = 6.6 + right, max(3.9, 1.2 + 0.2 * len(curves))
    left, bottom, top = 0.65, 0.5, 0.5
    with house_style():
        figure = new_figure(width, height)
        inner_width, inner_height = width - left - right, height - bottom - top
        axes = figure.add_axes((left / width, bottom / height, inner_width / width, inner_height / height))
        low, high = visible_range(curves, best_possible)
        axes.set_ylim(low, high)
        longest = max(len(curve.mean) for curve in curves)
        axes.set_xlim(1 - 0.01 * longest, max(longest, 2))
        for curve in curves:
            _draw_curve(axes, curve, opacity=0.14 if len(curves) < 5 else 0.08)
        if best_possible is not None:
            _draw_best_possible(axes, best_possible, low, high)
        ends = [next((v for v in reversed(_finite(curve.mean)) if not math.isnan(v)), low) for curve in curves]
        gap = (high - low) * 0.175 / inner_height
        for curve, name, end, place in zip(curves, names, ends, _spread(ends, gap, low, high), strict=True):
            color, x = SERIES[curve.color % len(SERIES)], len(curve.mean)
            shift = longest + (max(longest, 2) - 1) * 0.16 / inner_width
            axes.plot([x, shift], [end, place], color=color, linewidth=0.7, clip_on=False, gid="leader-0")
            axes.plot([x], [end], "o", color=color, markersize=3.5, clip_on=False, gid="end-0")
            axes.text(shift, place, f" {name}", va="center", color=INK, fontsize=9.5)
        axes.set_xlabel("evaluations")
        # Above the axis, not beside it: names of scores are longer than the axis is high.
        axes.set_ylabel(f"best so far: {shortened(score_name, 80)}", rotation=0, ha="left", va="bottom")
        axes.yaxis.set_label_coords(-0.6 / inner_width, 1 + 0.2 / inner_height)
        style_course(axes)
        return to_svg(figure, f"Best score so far, {score_name}, of: {', '.join(curve.label for curve in curves)}")


def visible_range(curves: Sequence[Curve], best_possible: float | None = None) -> tuple[float, float]:
    """Ends of the vertical axis, chosen so that the differences at the end can be seen.

    Early scores may be far below what is found later; they may fall below the axis. What is left takes up at most eight
    times the range that the ends of the curves and their intervals span.

    Args:
        curves: what is to be seen.
        best_possible: inside the range where that costs at most half the height.
    """
    ends: list[float] = []
    quarters: list[float] = []
    values: list[float] = []
    for curve in curves:
        known = [value for value in _finite(curve.mean) if not math.isnan(value)]
        if known:
            values += known
            ends += [known[-1], *((curve.interval[-1] or ()) if len(curve.interval) else ())]
            quarters.append(known[len(known) // 4])
    if not values:
        return (0.0, 1.0) if best_possible is None else (best_possible - 1.0, best_possible + 1.0)
    highest, lowest = max(values + ends), min(values + ends)
    span = highest - min(ends)
    low = min(quarters)
    if span > 0:
        low = max(highest - 8 * span, min(highest - 2.5 * span, low))
    low = max(low, lowest)
    if best_possible is not None and highest < best_possible <= highest + (highest - low):
        highest = best_possible
    margin = 0.07 * (highest - low) or 0.01 * abs(highest) or 1.0
    return low - margin, highest + margin


def architecture_svg(edges: Sequence[Edge]) -> str:
    """An architecture as a graph with labelled arrows, from left to right; long chains wind to and fro.

    Args:
        edges: `SearchSpace.diagram`'s.

    Returns:
        An ``<svg>`` element; empty text where there are no edges.
    """
    if not edges:
        return ""
    from matplotlib.patches import FancyArrowPatch

    places = _layout(edges)
    with house_style():
        bends = _bends(edges, places)
        middles = [_middle(places[e.source], places[e.target], bend) for e, bend in zip(edges, bends, strict=True)]
        xs, ys = zip(*places.values(), *middles, strict=True)
        half = max(_half_width(node) for node in places)
        x0, x1, y0, y1 = min(xs) - half - 0.1, max(xs) + half + 0.1, min(ys) - 0.35, max(ys) + 0.35
        figure = new_figure(x1 - x0, y1 - y0)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(x0, x1)
        axes.set_ylim(y0, y1)
        for edge, bend, (x, y) in zip(edges, bends, middles, strict=True):
            (ax, ay), (bx, by) = places[edge.source], places[edge.target]
            across = abs(bx - ax) >= abs(by - ay)
            shrink = [72 * (_half_width(node) if across else 0.17) + 1 for node in (edge.source, edge.target)]
            arrow = FancyArrowPatch(
                (ax, ay),
                (bx, by),
                connectionstyle=f"arc3,rad={bend}",
                arrowstyle="-|>,head_length=5,head_width=2.6",
                shrinkA=shrink[0],
                shrinkB=shrink[1],
                color=MUTED,
                linewidth=1.1,
                gid="arrow-0",
            )
            axes.add_patch(arrow)
            box = {"boxstyle": "round,pad=0.18", "facecolor": PAPER, "edgecolor": "none"}
            axes.text(x, y, edge.label, ha="center", va="center", fontsize=8.5, color=INK, bbox=box, gid="label-0")
        for node, (x, y) in places.items():
            box = {"boxstyle": "round,pad=0.42,rounding_size=0.9", "facecolor": TINT, "edgecolor": MUTED}
            axes.text(x, y, node, ha="center", va="center", fontsize=9.5, color=INK, bbox=box, gid="node-0")
        words = "; ".join(f"{edge.source} to {edge.target}: {edge.label}" for edge in edges)
        return to_svg(figure, f"Architecture: {words}")


# ---- curves --------------------------------------------------------------------------------------------------------


def _draw_curve(axes: Axes, curve: Curve, opacity: float) -> None:
    color = SERIES[curve.color % len(SERIES)]
    mean = np.array(_finite(curve.mean))
    x = np.arange(1, len(mean) + 1)
    shown = np.unique(np.linspace(0, len(mean) - 1, min(len(mean), _MOST_POINTS)).round().astype(int))
    if any(each is not None for each in curve.interval):
        band = np.array([(math.nan, math.nan) if each is None else each for each in curve.interval], dtype=float)
        axes.fill_between(
            x[shown], band[shown, 0], band[shown, 1], step="post", color=color, alpha=opacity, linewidth=0, gid="band-0"
        )
    dash = DASHES[curve.dash % len(DASHES)]
    axes.plot(x[shown], mean[shown], color=color, linestyle=dash, linewidth=1.9, drawstyle="steps-post", gid="curve-0")


def _draw_best_possible(axes: Axes, value: float, low: float, high: float) -> None:
    words = f"best in the space: {value:.4g}"
    if low <= value <= high:
        axes.axhline(value, color=MUTED, linestyle=(0, (1, 2.2)), linewidth=1.3, gid="best-0")
    else:
        words += " (above the axis)" if value > high else " (below the axis)"
    axes.annotate(
        words,
        (1, min(max(value, low), high)),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=MUTED,
    )


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


def _finite(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None or not math.isfinite(value) else float(value) for value in values]


# ---- architectures -------------------------------------------------------------------------------------------------


def _layout(edges: Sequence[Edge]) -> dict[str, tuple[float, float]]:
    """Where each node stands, in inches: a column by its longest path from an input, or rows for a chain."""
    nodes = list(dict.fromkeys(itertools.chain.from_iterable((edge.source, edge.target) for edge in edges)))
    step = min(max(1.0, 0.75 + 0.072 * max(len(edge.label) for edge in edges)), 3.2)
    step += 2 * max(_half_width(node) for node in nodes) - 0.36
    chain = all(a.target == b.source for a, b in itertools.pairwise(edges)) and len(nodes) == len(edges) + 1
    if chain and len(edges) * step > 7.5:
        per_row = max(2, int(7.5 / step) + 1)
        rows = [divmod(k, per_row) for k in range(len(nodes))]
        return {
            node: ((column if row % 2 == 0 else per_row - 1 - column) * step, -0.8 * row)
            for node, (row, column) in zip(nodes, rows, strict=True)
        }
    columns: dict[int, list[str]] = {}
    for node, column in _depths(nodes, edges).items():
        columns.setdefault(column, []).append(node)
    return {
        node: (column * step, 0.9 * ((len(members) - 1) / 2 - k))
        for column, members in columns.items()
        for k, node in enumerate(members)
    }


def _depths(nodes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The longest path from an input to each node, in edges."""
    before: dict[str, list[str]] = {node: [] for node in nodes}
    for edge in edges:
        before[edge.target].append(edge.source)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError:  # no architecture that can be built, yet a picture must not stop a report
        return {node: k for k, node in enumerate(nodes)}
    depths: dict[str, int] = {}
    for node in order:
        depths[node] = max((depths[each] + 1 for each in before[node]), default=0)
    return {node: depths[node] for node in nodes}


def _bends(edges: Sequence[Edge], places: Mapping[str, tuple[float, float]]) -> list[float]:
    """How far each arrow bends: arrows over other nodes alternate above and below, parallel ones part."""
    step = min((abs(places[e.source][0] - places[e.target][0]) or math.inf for e in edges), default=1.0)
    bends = [0.0] * len(edges)
    sides = itertools.cycle((-1, 1))
    far = [k for k, e in enumerate(edges) if abs(places[e.target][0] - places[e.source][0]) > 1.5 * step]
    for k in sorted(far, key=lambda k: abs(places[edges[k].target][0] - places[edges[k].source][0])):
        if places[edges[k].source][1] == places[edges[k].target][1]:
            bends[k] = next(sides) * 0.42
    seen: dict[tuple[str, str], int] = {}
    for k, edge in enumerate(edges):
        twin = seen.get((edge.source, edge.target), 0)
        bends[k] += 0.3 * ((twin + 1) // 2) * (-1 if twin % 2 else 1)
        seen[edge.source, edge.target] = twin + 1
    return bends


def _middle(a: tuple[float, float], b: tuple[float, float], bend: float) -> tuple[float, float]:
    """The middle of matplotlib's ``arc3``, a quadratic Bézier curve."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    return (a[0] + b[0] + bend * dy) / 2, (a[1] + b[1] - bend * dx) / 2


def _half_width(node: str) -> float:
    """Half the width of a node's box, in inches."""
    return 0.06 + 0.041 * max(1.4, len(node))
