"""The page about a network that was trained in full: how the training went, and how to use what it left."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.recipes.trust import modules_of_others, with_trust
from search.reports.architecture_svg import architecture_svg
from search.reports.line_chart import Line, line_chart
from search.reports.page import decimals_for, number, render_page
from search.reports.svg import SERIES
from search.reports.tested_network import content_of_test

if TYPE_CHECKING:
    from datamodules.preprocessing import Preprocessing
    from search.deploy.choice import Choice
    from search.deploy.testing import Tested

_MOST_LINES = len(SERIES)


def trained_page(
    folder: Path,
    choice: Choice,
    about: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    tested: Tested | None = None,
    preprocessing: Preprocessing | None = None,
) -> str:
    """The page.

    Args:
        folder: where it will lie.
        choice: what was trained.
        about: the content of ``network.json``.
        history: what was logged, epoch by epoch.
        tested: what came of the images that chose nothing; None where the data have none.
        preprocessing: what the network takes; None where nobody knows.
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
        diagram=architecture_svg(choice.space.diagram(choice.architecture), choice.space.places()),
        metrics=[(name, number(value, decimals_for([value]))) for name, value in about["metrics"].items()],
        test=None if tested is None else content_of_test(tested, [*about["test"]["of_classes"]], preprocessing),
        seconds=sum(entry["seconds"] for entry in history),
        folder=str(folder),
        trust=modules_of_others([about["space"], about["module"]]),
        export=with_trust(f"catchmark export {shlex.quote(str(folder))}", [about["space"], about["module"]]),
    )


def curve_svg(history: Sequence[Mapping[str, float]], names: Sequence[str], label: str) -> str:
    """Logged values over epochs.

    Args:
        history: for each epoch ``epoch`` and what was logged.
        names: of the values to draw; epochs without one are left out of its line.
        label: of the vertical axis, with its unit.

    Returns:
        An ``<svg>`` element.
    """
    lines = []
    for k, name in enumerate(names):
        logged = [entry for entry in history if math.isfinite(entry.get(name, math.nan))]
        if logged:
            lines.append(Line(name, [entry["epoch"] for entry in logged], [entry[name] for entry in logged], color=k))
    words = f"{label} after each epoch: {', '.join(names)}"
    return line_chart(lines, "epoch", label, height=1.95, description=words)
