"""``catchmark report``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from search.commands import add_trust
from search.errors import CatchmarkError

if TYPE_CHECKING:
    from search.runs.journal import Journal
    from search.studies.base import Study

HELP = "Write a run's report again."
EXAMPLE = "catchmark report runs/quickstart/latest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run."""
    parser.add_argument("folder", type=Path, help="a run's folder")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="keep every figure as PDF and SVG too")
    parser.add_argument(
        "--optuna", type=Path, metavar="FILE", help="write the run as Optuna studies too, for dashboards"
    )
    add_trust(parser)


def run(chosen: argparse.Namespace) -> int:
    """Write it, and say where it is."""
    from search.reports.svg import kept_in

    with kept_in(chosen.figures):
        print(rewrite_report(chosen.folder, chosen.trust, chosen.optuna))
    if chosen.optuna is not None:
        print(f"studies: {chosen.optuna}, for instance for: optuna-dashboard sqlite:///{chosen.optuna}")
    if chosen.figures is not None:
        print(f"figures: {chosen.figures}")
    return 0


def rewrite_report(folder: Path, trust: str | Iterable[str] = (), optuna: Path | None = None) -> Path:
    """The report of a run, finished or not, made again from its folder.

    Args:
        folder: it is data: nothing in it is executed.
        trust: what else than catchmark's own it may name: classes, modules and packages by import path.
        optuna: an SQLite file for the run's searches as Optuna studies.

    Raises:
        CatchmarkError: it is no run's folder, is damaged, or names what is not trusted.
    """
    from search.recipes.recipe import load_recipe
    from search.recipes.trust import check_links, trust_of
    from search.reports.pages import write_report
    from search.runs.exit_codes import told_in_one_line
    from search.runs.folders import CONFIG, JOURNAL, SUMMARY
    from search.runs.journal import Journal
    from search.runs.json_files import write_json

    if not (folder / CONFIG).is_file():
        raise CatchmarkError(f"{folder} is not a run folder: it has no {CONFIG}")
    check_links(folder)
    study, _ = load_recipe(folder / CONFIG, trust=trust_of(trust))
    journal = Journal(folder / JOURNAL, writable=False)
    with told_in_one_line(folder, "the journal stays as it is", "write the report again"):
        try:
            write_json(folder / SUMMARY, summary := study.summarise(journal))
            if optuna is not None:
                _export(study, journal, optuna)
        finally:
            journal.close()
        return write_report(folder, study, summary)


def _export(study: Study, journal: Journal, path: Path) -> None:
    from search.results.optuna_study import export_optuna
    from search.studies.experiment import Experiment

    if not isinstance(study, Experiment):
        raise CatchmarkError("--optuna: this run has no searches by agents, which are what a study can hold")
    export_optuna(study, journal, path)
