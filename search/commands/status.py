"""``catchmark status``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "List runs: which go on, in which process, how far they are, and when they last wrote."
EXAMPLE = "catchmark status runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to look."""
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("runs"), help="a folder with runs below it (default: %(default)s)"
    )


def run(chosen: argparse.Namespace) -> int:
    """Print a line for each run, the one that wrote last first."""
    import time

    from search.errors import CatchmarkError
    from search.reports.page import duration
    from search.runs.standing import find_runs

    if not chosen.folder.is_dir():
        raise CatchmarkError(f"status: '{chosen.folder}' is no folder; runs go to 'runs' unless --runs says otherwise")
    lines = [("run", "state", "process", "done", "last written")]
    for each in find_runs(chosen.folder):
        planned = "" if each.planned is None else f" of {each.planned}"
        ago = f"{duration(max(0.0, time.time() - each.written))} ago"
        process = "" if each.process is None else str(each.process)
        lines.append((str(each.folder), each.state, process, f"{each.done}{planned}", ago))
    if len(lines) == 1:
        print(f"no run below {chosen.folder}")
        return 0
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        print("".join(each if each.isprintable() else "?" for each in text))
    return 0
