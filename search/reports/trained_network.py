"""The page about a network that was trained in full: how the training went, and how to use what it left."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.deploy.choice import Choice
from search.recipes.trust import modules_of_others, with_trust
from search.reports.page import decimals_for, number, render_page
from search.reports.plots import architecture_svg
from search.reports.svg import DASHES, INK, SERIES, house_style, new_figure, shortened, style_course, to_svg

_MOST_LINES = len(SERIES)


def trained_page(folder: Path, choice: Choice, about: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    """The page.

    Args:
        folder: where it will lie.
        choice: what was trained.
        about: the content of ``network.json``.
        history: what was logged, epoch by epoch.
    """
    score = about["score"]
    losses = [name for name in history[-1] if "loss" in name and name != score][:_MOST_LINES]
    panels = [(about["score_name"], [score])] + ([("loss", losses)] if losses else [])
    return render_page(
        "trained",
        "trained.html.jinja",
        title=f"{choice.target or 'A network'}, trained in full",
        about=about,
        curves=[curve_svg(history, names, label) for label, names in panels],
        diagram=architecture_svg(choice.space.diagram(choice.architecture)),
        metrics=[(name, number(value, decimals_for([value]))) for name, value in about["metrics"].items()],
        seconds=sum(entry["seconds"] for entry in history),
        folder=str(folder),
        trust=modules_of_others([about["space"], about["module"]]),
        export=with_trust(f"catchmark export {shlex.quote(str(folder))}", [about["space"], about["module"]]),
    )


def curve_svg(history: Sequence[Mapping[str, float]], names: Sequence[str], label: str) -> str:
    """Logged values over epochs, each line named at its end.

    Args:
        history: for each epoch ``epoch`` and what was logged.
        names: of the values to draw; epochs without one are left out of its line.
        label: of the vertical axis, with its unit.

    Returns:
        An ``<svg>`` element.
    """
    right = 0.35 + 0.083 * max(len(shortened(name)) for name in names)
    width, height, left, bottom, top = 6.0 + right, 2.9, 0.65, 0.5, 0.45
    with house_style():
        figure = new_figure(width, height)
        inner = (width - left - right) / width, (height - bottom - top) / height
        axes = figure.add_axes((left / width, bottom / height, *inner))
        ends = []
        for k, name in enumerate(names):
            logged = [entry for entry in history if math.isfinite(entry.get(name, math.nan))]
            epochs, values = [entry["epoch"] for entry in logged], [entry[name] for entry in logged]
            if epochs:
                color = SERIES[k % len(SERIES)]
                axes.plot(epochs, values, color=color, linestyle=DASHES[k % len(DASHES)], linewidth=1.9, gid="curve-0")
                axes.plot(epochs[-1:], values[-1:], "o", color=color, markersize=3.5, clip_on=False, gid="end-0")
                ends.append((values[-1], epochs[-1], name))
        low, high = axes.get_ylim()
        place = low
        for value, epoch, name in sorted(ends):  # labels of lines that end together stand above each other
            place = max(value, place)
            axes.annotate(
                shortened(name),
                (epoch, place),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                fontsize=9.5,
                annotation_clip=False,
            )
            place += 0.08 * (high - low)
        axes.set_xlabel("epoch")
        # Above the axis, not beside it: names of scores are longer than the axis is high.
        axes.set_ylabel(shortened(label, 80), rotation=0, ha="left", va="bottom")
        axes.yaxis.set_label_coords(-0.1, 1.05)
        style_course(axes)
        return to_svg(figure, f"{label} after each epoch: {', '.join(names)}")
