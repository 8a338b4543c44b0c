"""``catchmark compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Compare runs: scores, significance, curves, differences of their recipes."
EXAMPLE = "catchmark compare runs/quickstart/A runs/quickstart/B --html comparison.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which runs."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="two or more run folders")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the comparison as a page too")


def run(chosen: argparse.Namespace) -> int:
    """Print the comparison."""
    from search.reports.comparison import render_text, write_html
    from search.results.comparison import compare_runs

    comparison = compare_runs(chosen.folders)
    print(render_text(comparison))
    if chosen.html is not None:
        write_html(comparison, chosen.html)
        print(f"page: {chosen.html}")
    return 0
