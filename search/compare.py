"""Runs side by side: scores, differences with their significance, curves, and what their recipes have otherwise.

Everything is read from the run folders alone, as plain values: runs can be compared where their data and classes are
not, and those of a stranger too.
"""

from __future__ import annotations

import itertools
import json
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import CatchmarkError
from search.journal import Journal
from search.recipes.trust import read_json
from search.recipes.words import explain
from search.recipes.yaml_text import parse_yaml
from search.reports.page import ABSENT, decimals_for, number, p_text, render_page, share
from search.reports.plots import SERIES, Curve, curves_svg
from search.significance import FEWEST_TRIALS, SIGNIFICANT, holm, rank_test
from search.summary import best_so_far, mean_interval

_WIDTH = 100
_MOST_PAIRS = 20
_MOST_TRIALS = 100_000
"""No run has that many; a damaged summary may say so."""


@dataclass(frozen=True)
class Row:
    """What one agent found on one target in one run.

    Attributes:
        run: the run's letter.
        curves: float64 ``[trials, evaluations]``, the best score after each evaluation, NaN before the first success.
        summary: the agent's entry of ``summary.json``.
    """

    run: str
    target: str
    agent: str
    score_name: str
    space: str
    failed: int
    curves: np.ndarray = field(repr=False)
    summary: dict[str, Any] = field(repr=False)

    @property
    def evaluations(self) -> int:
        """Evaluations a trial."""
        return self.curves.shape[1]

    def best(self, evaluations: int | None = None) -> np.ndarray:
        """The best score of each trial that found one, after so many evaluations: float64 ``[<= trials]``."""
        evaluations = self.evaluations if evaluations is None else evaluations
        if evaluations == 0:
            return np.empty(0)
        best = self.curves[:, evaluations - 1]
        return best[~np.isnan(best)]


@dataclass(frozen=True)
class Difference:
    """Two rows of a target against each other, at equal numbers of evaluations.

    Attributes:
        first: the row whose mean is taken.
        second: the row whose mean is subtracted.
        evaluations: how many, a trial, both are judged by: the fewer of the two.
        difference: of the means; None where one of them found nothing.
        p_value: Mann-Whitney U, two-sided, Holm-corrected over the pairs of its kind on the target; None where there
            are too few trials.
    """

    first: Row
    second: Row
    evaluations: int
    difference: float | None
    p_value: float | None

    @property
    def verdict(self) -> str:
        """What can be said."""
        if self.difference is None:
            return "nothing found to compare"
        if self.p_value is None:
            return "too few trials"
        return "significant" if self.p_value < SIGNIFICANT else "not significant"


@dataclass(frozen=True)
class Comparison:
    """Two or more runs side by side.

    Attributes:
        runs: the shown folder of each run, by its letter.
        rows: target by target, agent by agent, run by run.
        same_agent: differences between runs of agents with the same name.
        other_pairs: all other pairs on a target.
        settings: recipe keys in which the runs differ: the value of each run, None where it lacks the key.
        notes: what makes the comparison less than fair, a sentence each.
    """

    runs: dict[str, str]
    rows: list[Row]
    same_agent: list[Difference]
    other_pairs: list[Difference]
    settings: dict[str, dict[str, str | None]]
    notes: list[str]

    def targets(self) -> dict[str, list[Row]]:
        """The rows of each target."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.target, []).append(row)
        return found


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Read two or more run folders and compare them.

    Raises:
        CatchmarkError: fewer than two, one of them twice, or a folder that is not a run.
    """
    resolved = [Path(folder).resolve() for folder in folders]
    if len(resolved) < 2:
        raise CatchmarkError(f"compare: {len(resolved)} run given, two or more are needed")
    for folder in resolved:
        if resolved.count(folder) > 1:
            raise CatchmarkError(f"compare: {folder} is given twice")
    runs = dict(zip(_letters(len(resolved)), resolved, strict=True))
    notes: list[str] = []
    rows = [row for letter, folder in runs.items() for row in _read_run(letter, folder, notes)]
    places = {key: k for k, key in reversed(list(enumerate((row.target, row.agent) for row in rows)))}
    targets = list(dict.fromkeys(row.target for row in rows))
    rows.sort(key=lambda row: (targets.index(row.target), places[row.target, row.agent]))  # stable: runs stay in order
    same_agent, other_pairs = [], []
    for target in targets:
        members = [row for row in rows if row.target == target]
        scales = {(row.score_name, row.space): row for row in members}
        if len(scales) > 1:
            kinds = "; ".join(f"{row.run} has '{name}' on space '{space}'" for (name, space), row in scales.items())
            notes.append(f"target '{target}' is not the same everywhere, so such runs are not compared on it: {kinds}.")
        if len({row.evaluations for row in members}) > 1:
            notes.append(
                f"target '{target}': the runs have different numbers of evaluations a trial; each pair is judged by "
                "the fewer."
            )
        pairs = [
            (a, b) for a, b in itertools.combinations(members, 2) if (a.score_name, a.space) == (b.score_name, b.space)
        ]
        same_agent += differences([(a, b) for a, b in pairs if a.agent == b.agent])
        other_pairs += differences([(a, b) for a, b in pairs if a.agent != b.agent])
    settings = _settings({letter: folder / "config.yaml" for letter, folder in runs.items()})
    shown = {letter: shown_path(folder) for letter, folder in runs.items()}
    return Comparison(shown, rows, same_agent, other_pairs, settings, notes)


# ---- significance --------------------------------------------------------------------------------------------------


def differences(pairs: Sequence[tuple[Row, Row]]) -> list[Difference]:
    """The difference of each pair; p-values are corrected for the number of pairs."""
    cut = [min(a.evaluations, b.evaluations) for a, b in pairs]
    scores = [(a.best(n), b.best(n)) for (a, b), n in zip(pairs, cut, strict=True)]
    p_values = holm([rank_test(a, b) for a, b in scores])
    return [
        Difference(a, b, n, float(x.mean() - y.mean()) if len(x) and len(y) else None, p)
        for (a, b), n, (x, y), p in zip(pairs, cut, scores, p_values, strict=True)
    ]


# ---- reading -------------------------------------------------------------------------------------------------------


def _read_run(letter: str, folder: Path, notes: list[str]) -> list[Row]:
    if not (folder / "journal.sqlite").is_file():
        raise CatchmarkError(f"{folder} is not a run folder: it has no journal.sqlite")
    try:
        summary = read_json(folder / "summary.json")
    except FileNotFoundError:
        raise CatchmarkError(f"{folder} has no summary.json; write it with: catchmark report {folder}") from None
    except ValueError as error:
        raise CatchmarkError(
            f"{folder / 'summary.json'} is damaged ({error}); mend: catchmark report {folder}"
        ) from error
    except OSError as error:
        raise CatchmarkError(explain(error)) from error
    if "targets" not in summary:
        raise CatchmarkError(f"{folder} trained supernets; only searches are compared here, methods in its report.html")
    try:
        return _rows(letter, folder, summary, notes)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CatchmarkError(
            f"{folder / 'summary.json'} is damaged, or not that of the journal beside it ({explain(error)}); mend: "
            f"catchmark report {folder}"
        ) from error


def _rows(letter: str, folder: Path, summary: Mapping[str, Any], notes: list[str]) -> list[Row]:
    rows = []
    journal = Journal(folder / "journal.sqlite", writable=False)
    try:
        if unfinished := [name for name in journal.searches() if not journal.progress(name)[0]]:
            notes.append(f"run {letter} is unfinished, it goes on with: {', '.join(unfinished)}.")
        for target, found in summary["targets"].items():
            for agent, numbers in found["agents"].items():
                seconds = found.get("budget_seconds")
                if not 1 <= numbers["trials"] <= _MOST_TRIALS:
                    raise ValueError(f"trials is {numbers['trials']}")
                curves = best_so_far(journal.records(f"{target}/{agent}"), numbers["trials"], seconds)
                if curves.shape[1] != numbers["evaluations"]:
                    raise CatchmarkError(
                        f"{folder / 'summary.json'} is older than the journal; write it anew: catchmark report {folder}"
                    )
                rows.append(
                    Row(
                        letter,
                        target,
                        agent,
                        str(found["score_name"]),
                        str(summary["space"]),
                        int(numbers["failed"]),
                        curves,
                        numbers,
                    )
                )
    finally:
        journal.close()
    return rows


def flatten(config: Any, key: str = "") -> dict[str, str]:
    """A recipe as dotted keys with values as text; list entries have their place in brackets."""
    if isinstance(config, Mapping) and config:
        parts: Iterable[tuple[str, Any]] = (
            (f"{key}.{name}" if key else str(name), each) for name, each in config.items()
        )
    elif isinstance(config, list) and any(isinstance(each, dict | list) for each in config):
        parts = ((f"{key}[{k}]", each) for k, each in enumerate(config))
    else:
        return {key: config if isinstance(config, str) else json.dumps(config, default=str)}
    return {name: value for inner, each in parts for name, value in flatten(each, inner).items()}


def _settings(paths: Mapping[str, Path]) -> dict[str, dict[str, str | None]]:
    configs: dict[str, dict[str, str]] = {}
    for letter, path in paths.items():
        try:
            configs[letter] = flatten(parse_yaml(path.read_text(encoding="utf-8"))) if path.is_file() else {}
        except CatchmarkError as error:
            raise CatchmarkError(f"{path} is not valid YAML: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise CatchmarkError(f"{path} can't be read: {explain(error)}") from error
    keys = dict.fromkeys(itertools.chain.from_iterable(configs.values()))
    values = {key: {letter: config.get(key) for letter, config in configs.items()} for key in keys}
    return {key: each for key, each in values.items() if len(set(each.values())) > 1}


def shown_path(folder: Path) -> str:
    """A folder as a reader would type it: relative to where the command runs, where it is below."""
    resolved = Path(folder).resolve()
    return os.path.relpath(resolved) if resolved.is_relative_to(Path.cwd()) else str(resolved)


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + k) if k < 26 else f"R{k + 1}" for k in range(count)]


# ---- writing -------------------------------------------------------------------------------------------------------


def table_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a target's rows, text and page alike; columns without any value are left out."""
    means = [float(row.best().mean()) if len(row.best()) else None for row in rows]
    intervals = [mean_interval(row.best()) for row in rows]
    decimals = decimals_for([*means, *(end for each in intervals if each for end in each)])
    headings = ["agent", "run", "best mean", "95% interval", "trials", "evaluations", "failed"]
    headings += ["found best", "found top 3", "mean rank"]
    cells = []
    for row, mean, interval in zip(rows, means, intervals, strict=True):
        between = ABSENT if interval is None else f"{number(interval[0], decimals)} to {number(interval[1], decimals)}"
        cells.append([row.agent, row.run, number(mean, decimals), between])
        cells[-1] += [str(len(row.curves)), str(row.evaluations), str(row.failed)]
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
        curves.append(
            Curve(f"{row.run} {row.agent}", means, [mean_interval(c) for c in columns], color % len(SERIES), dash)
        )
    possible = {row.summary.get("best_possible") for row in rows}
    return curves_svg(curves, rows[0].score_name, possible.pop() if len(possible) == 1 else None)


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
