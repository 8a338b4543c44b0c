"""Architectures as graphs, drawn as SVG text.

Pure functions of plain data, by matplotlib's object-oriented interface; the same input gives the same text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from search.reports.svg import INK, MUTED, PAPER, TINT, house_style, new_figure, to_svg
from search.spaces.base import Edge

_STEP, _ROW = 1.15, 0.9
"""Inches between columns and between rows of nodes that have places."""


def architecture_svg(edges: Sequence[Edge], fixed: Mapping[str, tuple[float, float]] | None = None) -> str:
    """An architecture as a graph with labelled arrows, from left to right; long chains wind to and fro.

    Args:
        edges: `SearchSpace.diagram`'s.
        fixed: `SearchSpace.places`: column and row of each node, from the left and from above; nodes that no arrow
            touches are drawn pale. None or empty to lay nodes out by the arrows.

    Returns:
        An ``<svg>`` element; empty text where there are no edges.
    """
    if not edges:
        return ""
    from matplotlib.patches import FancyArrowPatch

    places = {node: (_STEP * x, -_ROW * y) for node, (x, y) in fixed.items()} if fixed else _layout(edges)
    touched = {node for edge in edges for node in (edge.source, edge.target)}
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
            pale: dict[str, Any] = {} if node in touched else {"alpha": 0.35}
            axes.text(
                x, y, node, ha="center", va="center", fontsize=9.5, color=INK, bbox=box | pale, gid="node-0", **pale
            )
        words = "; ".join(f"{edge.source} to {edge.target}: {edge.label}" for edge in edges)
        return to_svg(figure, f"Architecture: {words}")


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
