"""The figure of rankings: how far each of them agrees with each truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from search.reports.svg import INK, MUTED, house_style, new_figure, plain_frame, shortened, style_of, to_svg

_ROW = 0.22
"""Inches a ranking."""
_KEYS_A_ROW = 4


def agreement_svg(
    rankings: Mapping[str, Mapping[str, float | None]], truths: Sequence[str], measure: str = "Kendall's tau-b"
) -> str:
    """How far every ranking agrees with every truth, a row a ranking, the best on top.

    Args:
        rankings: by name their agreement with each truth; None where it is not known.
        truths: names, at least one.
        measure: of agreement.

    Returns:
        An ``<svg>`` element, or nothing where no ranking could be compared with any truth.
    """
    known = {
        name: {truth: value for truth, value in each.items() if value is not None} for name, each in rankings.items()
    }
    rows = sorted(
        (name for name in known if known[name]), key=lambda name: sum(known[name].values()) / len(known[name])
    )
    if not rows:
        return ""
    width, bottom, top = 6.4, 0.5, 0.16 + 0.19 * math.ceil(len(truths) / _KEYS_A_ROW)
    height = bottom + top + _ROW * len(rows)
    with house_style():
        figure = new_figure(width, height)
        left = 0.2 + 0.075 * max(len(shortened(name)) for name in rows)
        axes = figure.add_axes(
            (left / width, bottom / height, (width - left - 0.15) / width, _ROW * len(rows) / height)
        )
        plain_frame(axes)
        for place, truth in enumerate(truths):
            color, marker, _ = style_of(place)
            points = [(known[name][truth], row) for row, name in enumerate(rows) if truth in known[name]]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, linestyle="none", marker=marker, color=color, markersize=5.5, label=shortened(truth))
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_yticks(range(len(rows)), [shortened(name) for name in rows])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_xlabel(measure)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=_KEYS_A_ROW, frameon=False, fontsize=8.8, labelcolor=INK,
            handletextpad=0.1, columnspacing=1.2, borderaxespad=0.1,
        )  # fmt: skip
        return to_svg(figure, f"Agreement with {', '.join(truths)}, of: {', '.join(rows)}")
