"""``catchmark compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Compare runs: scores, significance, curves, differences of their recipes."
EXAMPLE = "catchmark compare runs/quickstart/A runs/quickstart/B --html comparison.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which runs."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="two or more run folders")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the score of every trial as a table")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="keep every figure as PDF and SVG too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the comparison as a page too")


def run(chosen: argparse.Namespace) -> int:
    """Print the comparison."""
    from search.reports.comparison import figures_of, render_text, write_csv, write_html
    from search.reports.svg import kept_in
    from search.results.comparison import compare_runs

    comparison = compare_runs(chosen.folders)
    print(render_text(comparison))
    if chosen.figures is not None:
        with kept_in(chosen.figures):
            figures_of(comparison)
        print(f"figures: {chosen.figures}")
    if chosen.csv is not None:
        write_csv(comparison, chosen.csv)
        print(f"table: {chosen.csv}")
    if chosen.html is not None:
        write_html(comparison, chosen.html)
        print(f"page: {chosen.html}")
    return 0
