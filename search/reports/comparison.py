"""Runs side by side: scores, differences with their significance, curves, and what their recipes have otherwise.

Everything is read from the run folders alone, as plain values: runs can be compared where their data and classes are
not, and those of a stranger too.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from search.errors import CatchmarkError
from search.reports.best_so_far import best_line, best_so_far_svg
from search.reports.page import ABSENT, decimals_for, number, p_text, render_page, share
from search.reports.svg import SERIES
from search.results.comparison import Comparison, Difference, Row
from search.statistics.clusters import clustered_mean_interval
from search.statistics.significance import FEWEST_TRIALS

_WIDTH = 100
_MOST_PAIRS = 20


def table_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a target's rows, text and page alike; columns without any value are left out."""
    means = [float(row.best().mean()) if len(row.best()) else None for row in rows]
    intervals = [clustered_mean_interval(row.best_of_trials(), row.meta_trainings) for row in rows]
    decimals = decimals_for([*means, *(end for each in intervals if each for end in each)])
    headings = ["agent", "run", "best mean", "95% interval", "trials", "evaluations", "failed"]
    headings += ["found best", "found top 3", "mean rank"]
    cells = []
    for row, mean, interval in zip(rows, means, intervals, strict=True):
        between = ABSENT if interval is None else f"{number(interval[0], decimals)} to {number(interval[1], decimals)}"
        cells.append([row.agent, row.run, number(mean, decimals), between])
        cells[-1] += [row.trials.removesuffix(" trials"), str(row.evaluations), str(row.failed)]
        cells[-1] += [share(row.summary.get("found_best")), share(row.summary.get("found_top3"))]
        cells[-1] += [number(row.summary.get("mean_rank"), 1)]
    keep = [k for k in range(len(headings)) if k < 7 or any(line[k] != ABSENT for line in cells)]
    return [headings[k] for k in keep], [[line[k] for k in keep] for line in cells]


def differences_table(found: Sequence[Difference]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of differences, text and page alike."""
    decimals = decimals_for([0.0, *(each.difference for each in found)])
    cells = []
    for each in found:
        a, b = each.first, each.second
        by = ABSENT if each.difference is None else f"{each.difference:+,.{decimals}f}"
        cells.append([f"{a.run} {a.agent}", f"{b.run} {b.agent}", str(each.evaluations), by])
        cells[-1] += [p_text(each.p_value), each.verdict]
    return ["this", "minus that", "evaluations", "difference", "p (Holm)", "verdict"], cells


def target_curves(rows: Sequence[Row]) -> str:
    """All rows of a target in one figure: an agent has its colour, a run its dashes."""
    agents, runs = list(dict.fromkeys(r.agent for r in rows)), list(dict.fromkeys(r.run for r in rows))
    curves = []
    for row in rows:
        columns = [column[~np.isnan(column)] for column in row.curves.T]
        means = [float(column.mean()) if len(column) else None for column in columns]
        color, dash = agents.index(row.agent), runs.index(row.run)
        if len(agents) == 1:  # with one agent, the colours are free to tell the runs apart
            color = dash
        color = color % len(SERIES) + dash * len(SERIES)
        intervals = [clustered_mean_interval(column, row.meta_trainings) for column in row.curves.T]
        curves.append(best_line(f"{row.run} {row.agent}", means, intervals, color))
    possible = {row.summary.get("best_possible") for row in rows}
    return best_so_far_svg(curves, rows[0].score_name, possible.pop() if len(possible) == 1 else None)


def render_text(comparison: Comparison) -> str:
    """The comparison as plain text, at most 100 columns wide."""
    lines = _wrapped([f"{letter} = {folder}" for letter, folder in comparison.runs.items()])
    lines += _wrapped([f"Note: {note}" for note in comparison.notes])
    for target, rows in comparison.targets().items():
        lines += ["", *_wrapped([f"{target}: {rows[0].score_name}, higher is better"])]
        lines += _text_table(*table_of(rows))
        for title, found in (
            ("the same agent in different runs", comparison.same_agent),
            ("different agents", comparison.other_pairs),
        ):
            mine = [each for each in found if each.first.target == target]
            if len(mine) > _MOST_PAIRS:
                lines += ["", f"  {title}: {len(mine)} pairs, which the page lists (--html FILE)"]
            elif mine:
                lines += ["", f"  {title}", *_text_table(*differences_table(mine))]
    lines += ["", "Recipes differ in:" if comparison.settings else "The recipes are the same."]
    for key, values in comparison.settings.items():
        lines += _wrapped([f"  {key}", *(f"    {letter}: {_absent(value)}" for letter, value in values.items())])
    # A name may hold what a terminal would obey.
    return "\n".join("".join(each if each.isprintable() else "?" for each in line) for line in lines)


def _absent(value: str | None) -> str:
    return "(not there)" if value is None else value


def _wrapped(lines: Iterable[str]) -> list[str]:
    wrapped = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        wrapped += textwrap.wrap(line, _WIDTH, subsequent_indent=f"{indent}    ", break_on_hyphens=False)
    return wrapped


def _text_table(headings: list[str], cells: list[list[str]]) -> list[str]:
    """Aligned columns under headings of a word a line; names give way where a line would be too long, never numbers."""
    columns = list(zip(*cells, strict=True))
    numeric = [not any(cell[:1].isalpha() for cell in column) for column in columns]
    words = [heading.split() for heading in headings]
    height = max(map(len, words))
    table = [[([""] * height + each)[-height + k] for each in words] for k in range(height)] + cells
    widths = [max(len(line[k]) for line in table) for k in range(len(headings))]
    names = [k for k, is_numeric in enumerate(numeric) if not is_numeric]
    while 2 + sum(widths) + 2 * (len(widths) - 1) > _WIDTH:
        widths[max(names, key=lambda k: widths[k])] -= 1
    lines = []
    for line in table:
        parts = []
        for cell, width, is_numeric in zip(line, widths, numeric, strict=True):
            cut = cell if len(cell) <= width else f"{cell[: width - 1]}…"
            parts.append(cut.rjust(width) if is_numeric else cut.ljust(width))
        lines.append(f"  {'  '.join(parts)}".rstrip())
    return lines


def figures_of(comparison: Comparison) -> list[str]:
    """The figures of the page, in its order."""
    return [target_curves(rows) for rows in comparison.targets().values()]


def write_csv(comparison: Comparison, path: Path) -> None:
    """The best score of every trial, a line each, as numbers that read back to the last bit.

    Columns: target, run (its folder), agent, trial, evaluations, score; empty where a trial found nothing.

    Raises:
        CatchmarkError: it can't be written there.
    """
    try:
        with Path(path).open("w", encoding="utf-8", errors="replace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["target", "run", "agent", "trial", "evaluations", "score"])
            for target, rows in comparison.targets().items():
                for row in rows:
                    ends = row.curves[:, -1] if row.evaluations else np.full(len(row.curves), np.nan)
                    for trial, score in enumerate(ends.tolist()):
                        said = "" if np.isnan(score) else repr(score)
                        writer.writerow([target, comparison.runs[row.run], row.agent, trial, row.evaluations, said])
    except OSError as error:
        raise CatchmarkError(f"--csv: '{path}' can't be written ({error.strerror}); name another file") from error


def write_html(comparison: Comparison, path: Path) -> None:
    """The comparison as a page that needs no other file and no network.

    Raises:
        CatchmarkError: it can't be written there.
    """
    targets = [
        {
            "name": target,
            "score_name": rows[0].score_name,
            "curves": target_curves(rows),
            "table": table_of(rows),
            "differences": [
                (title, differences_table(mine))
                for title, found in (
                    ("The same agent in different runs", comparison.same_agent),
                    ("Different agents", comparison.other_pairs),
                )
                if (mine := [each for each in found if each.first.target == target])
            ],
        }
        for target, rows in comparison.targets().items()
    ]
    page = render_page("comparison", comparison=comparison, targets=targets, fewest=FEWEST_TRIALS)
    try:
        Path(path).write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise CatchmarkError(f"--html: '{path}' can't be written ({error.strerror}); name another file") from error
