"""The chart of what searches had found by each of their evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.reports.line_chart import Line, finite, line_chart


def best_line(
    label: str, mean: Sequence[float | None], interval: Sequence[Sequence[float] | None] = (), color: int = 0
) -> Line:
    """A line of `best_so_far_svg`: a mean, and an interval, for each evaluation from the first on."""
    return Line(label, range(1, len(mean) + 1), mean, interval, color)


def best_so_far_svg(lines: Sequence[Line], score_name: str, best_possible: float | None = None) -> str:
    """Best score so far over evaluations.

    Args:
        lines: at least one.
        score_name: with its unit.
        best_possible: drawn as a dotted line, where known.

    Returns:
        An ``<svg>`` element.
    """
    return line_chart(
        lines,
        "evaluations",
        f"best so far: {score_name}",
        levels={} if best_possible is None else {f"best in the space: {best_possible:.4g}": best_possible},
        y_range=visible_range(lines, best_possible),
        steps=True,
        description=f"Best score so far, {score_name}, of: {', '.join(line.label for line in lines)}",
    )


def visible_range(lines: Sequence[Line], best_possible: float | None = None) -> tuple[float, float]:
    """Ends of the vertical axis, chosen so that the differences at the end can be seen.

    Early scores may be far below what is found later; they may fall below the axis. What is left takes up at most eight
    times the range that the ends of the lines and their intervals span.

    Args:
        lines: what is to be seen.
        best_possible: inside the range where that costs at most half the height.
    """
    ends: list[float] = []
    quarters: list[float] = []
    values: list[float] = []
    for line in lines:
        known = [value for value in finite(line.y) if not math.isnan(value)]
        if known:
            values += known
            ends += [known[-1], *((line.interval[-1] or ()) if len(line.interval) else ())]
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
