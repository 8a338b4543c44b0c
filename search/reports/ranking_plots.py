"""The figure of a ranking: how far each attribute agrees with each truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.reports.svg import INK, MUTED, house_style, new_figure, plain_frame, shortened, style_of, to_svg

_ROW = 0.22
"""Inches an attribute."""


def agreement_svg(attributes: Mapping[str, Mapping[str, Any]], truths: Mapping[str, str]) -> str:
    """Kendall's tau-b of every attribute with every truth, a row an attribute, the best on top.

    Args:
        attributes: of a ranking's summary; each has ``kendall_tau`` by truth, None where there is none.
        truths: what each is, by name; at least one.

    Returns:
        An ``<svg>`` element, or nothing where no attribute could be compared with any truth.
    """
    known = {
        name: {truth: tau for truth, tau in each["kendall_tau"].items() if tau is not None}
        for name, each in attributes.items()
    }
    rows = sorted(
        (name for name in known if known[name]), key=lambda name: sum(known[name].values()) / len(known[name])
    )
    if not rows:
        return ""
    width, bottom, top = 6.4, 0.5, 0.35
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
        axes.set_xlabel("Kendall's tau-b")
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8.8, labelcolor=INK,
            handletextpad=0.1, columnspacing=1.2, borderaxespad=0.1,
        )  # fmt: skip
        return to_svg(figure, f"Agreement of attributes with {', '.join(truths)}, of: {', '.join(rows)}")
