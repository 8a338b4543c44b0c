"""``catchmark sweep``: the runs of a W&B sweep, one after another on this machine, without a server."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.commands import run as run_command
from search.errors import CatchmarkError, RunError, one_line

if TYPE_CHECKING:
    from search.recipes.sweep_file import Point, SweepFile

HELP = "Run a sweep's file here, without W&B: every combination or so many draws, a run each, and a table of them."
MORE = (
    "The file is that of 'wandb sweep'. The same command again goes on where it was stopped, and with a larger --count "
    "further."
)
EXAMPLE = "catchmark sweep experiments/sweeps/catcher.sweep.yml --count 20"
NAMES_CODE = ("file",)
VALUES = "values.json"
"""In the folder of each run of a sweep: what was chosen for it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which sweep."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the sweep's YAML file")
    parser.add_argument("--count", type=int, metavar="N", help="runs at most; needed but for a grid")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="where folders go (default: %(default)s)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table of the runs, too")
    parser.add_argument("--tiny", action="store_true", help="cut every run to seconds, to see whether it runs")


def run(chosen: argparse.Namespace) -> int:
    """Run what has not been run, and tell of everything."""
    from search.recipes.sweep_file import read_sweep

    sweep = read_sweep(chosen.file)
    if chosen.count is None and sweep.method != "grid":
        raise CatchmarkError(f"sweep: how many? --count N is needed, for {sweep.method} never ends")
    if chosen.count is not None and chosen.count < 1:
        raise CatchmarkError(f"--count is {chosen.count}, at least 1 is needed")
    recipe, fixed, options = _command(sweep.words)
    options.tiny = options.tiny or chosen.tiny
    place = chosen.runs / f"{sweep.name}{'-tiny' if options.tiny else ''}.sweep"
    known: list[tuple[Point, float]] = []
    folders: list[Path | None] = []
    for number, point in enumerate(_points(sweep, chosen.seed, chosen.count, known)):
        folder = place / f"{number:03d}"
        _settle(folder, point)
        print(f"{number + 1}: {_in_words(point)}", flush=True)
        overrides = {**fixed, **{key: json.dumps(value) for key, value in point.items()}}
        found = _one(folder, recipe, overrides, options)
        folders.append(found)
        known.append((point, math.nan if found is None else _measured(found, sweep.metric)))
    rows = _rows(sweep, known, folders)
    print("", *_table(rows), sep="\n")
    if chosen.csv is not None:
        _write_csv(rows, chosen.csv)
        print(f"table: {chosen.csv}")
    _compare([each for each in folders if each is not None])
    return 0 if all(folders) else 1


def _command(words: list[str]) -> tuple[Path, dict[str, str], argparse.Namespace]:
    """The recipe, what is replaced in it in every run, and the options of ``catchmark run``."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    run_command.add_arguments(parser)
    options = parser.parse_args(run_command.rewrite(words))
    if options.recipe is None or options.join is not None or options.resume is not None:
        raise CatchmarkError("sweep: its command needs a recipe, and neither --join nor --resume")
    return Path(options.recipe), dict(each.split("=", 1) for each in options.overrides), options


def _points(sweep: SweepFile, seed: int, count: int | None, known: list[tuple[Point, float]]) -> Iterator[Point]:
    """Points one after another; each draw follows from what was known of those before it."""
    if sweep.method == "grid":
        for number, point in enumerate(sweep.grid()):
            if number != count:
                yield point
            else:
                return
    else:
        for _ in range(count or 0):
            yield sweep.draw(seed, known)


def _settle(folder: Path, point: Mapping[str, Any]) -> None:
    """Note what is chosen for a run; a folder that has another point belongs to another sweep."""
    from search.recipes.trust import read_json
    from search.runs.json_files import write_json

    if (noted := folder / VALUES).is_file():
        if read_json(noted) != json.loads(json.dumps(point)):
            raise CatchmarkError(
                f"{folder} has other values than the sweep wants there: its file, or --seed, has changed; name another "
                "folder with --runs"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(noted, dict(point))


def _one(folder: Path, recipe: Path, overrides: Mapping[str, str], options: argparse.Namespace) -> Path | None:
    """The folder of one run, which is run, gone on with, or there; None where it could not be finished."""
    from search.runs.exit_codes import Interrupted
    from search.runs.folders import JOURNAL
    from search.runs.standing import standing_of

    latest = next((each for each in folder.glob("*/latest") if (each / JOURNAL).is_file()), None)
    if latest is not None and standing_of(latest).state == "finished":
        return latest
    again = None if latest is None else str(latest)
    try:
        run_command.run_recipe(
            recipe, overrides, folder, again, quiet=options.quiet, trust=options.trust, tiny=options.tiny
        )
    except Interrupted as error:
        raise Interrupted("stopped; what was run is kept, go on with the same 'catchmark sweep' again") from error
    except RunError as error:  # a wrong recipe is wrong for all of them, and ends the sweep
        print(f"catchmark: {one_line(error)}", file=sys.stderr, flush=True)
        return None
    return next(iter(folder.glob("*/latest")))


def _measured(folder: Path, metric: str) -> float:
    """What judges a run; NaN where that could not be told, as of a search in which everything failed."""
    from search.errors import nearest
    from search.listeners.wandb.sweep import numbers
    from search.recipes.trust import read_json
    from search.runs.folders import SUMMARY

    summary = read_json(folder / SUMMARY)
    found: Any = summary
    for name in metric.split("/"):
        if not isinstance(found, dict) or name not in found:
            near = nearest(metric, list(numbers(summary)), words="")
            raise CatchmarkError(f"metric: {folder / SUMMARY} has no number '{metric}'{near}")
        found = found[name]
    return math.nan if found is None else float(found)


def _rows(sweep: SweepFile, known: list[tuple[Point, float]], folders: list[Path | None]) -> list[list[str]]:
    """The table, the best run first: its number, the metric, what was chosen, its folder."""
    sign = -1.0 if sweep.maximised else 1.0
    order = sorted(range(len(known)), key=lambda k: math.inf if math.isnan(known[k][1]) else sign * known[k][1])
    rows = [["run", sweep.metric, *sweep.parameters, "folder"]]
    for k in order:
        point, value = known[k]
        chosen = [_short(point[key]) for key in sweep.parameters]
        rows.append([str(k + 1), "" if math.isnan(value) else f"{value:.6g}", *chosen, str(folders[k] or "failed")])
    return rows


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _in_words(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in point.items())


def _table(rows: list[list[str]]) -> Iterator[str]:
    """Under headings that end as the dotted keys do, for these are long."""
    shown = [[name.rpartition("/")[2].rpartition(".")[2] for name in rows[0]], *rows[1:]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _write_csv(rows: list[list[str]], path: Path) -> None:
    import csv

    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    except OSError as error:
        raise CatchmarkError(f"--csv: '{path}' can't be written ({error.strerror}); name another file") from error


def _compare(folders: list[Path]) -> None:
    """Significance and differences, of runs that searched."""
    from search.recipes.trust import read_json
    from search.reports.comparison import render_text
    from search.results.comparison import compare_runs
    from search.runs.folders import SUMMARY

    if len(folders) > 1 and all("targets" in read_json(each / SUMMARY) for each in folders):
        print("", render_text(compare_runs(folders)), sep="\n")
