"""Which page a run has: that of what its recipe describes."""

from __future__ import annotations

from contextlib import closing
from functools import singledispatch
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError
from search.runs.folders import JOURNAL
from search.runs.journal import Journal
from search.runs.json_files import write_whole
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.studies.supernet_study import SupernetStudy


@singledispatch
def study_page(study: Study, folder: Path, journal: Journal, summary: dict[str, Any]) -> str:
    """The report of what a recipe describes, as one HTML page.

    A study of one's own brings its page: ``@study_page.register`` on a function whose first argument is that study.

    Args:
        study: what the recipe describes.
        folder: the run's folder.
        journal: the run's journal.
        summary: what `Study.summarise` says of it.
    """
    raise CatchmarkError(
        f"there is no report of a {type(study).__name__}: register a page for it (search.reports.pages)"
    )


@study_page.register
def _(study: Experiment, folder: Path, journal: Journal, summary: dict[str, Any]) -> str:
    from search.reports.experiment import report_page

    return report_page(folder, study, journal, summary)


@study_page.register
def _(study: SupernetStudy, folder: Path, journal: Journal, summary: dict[str, Any]) -> str:
    from search.reports.supernet_study import report_page

    return report_page(folder, study, journal, summary)


def write_report(folder: Path, study: Study, summary: dict[str, Any] | None = None) -> Path:
    """Write ``report.html`` of a run, finished or not, from its journal.

    Args:
        folder: the run's folder.
        study: what the run's recipe describes.
        summary: what `Study.summarise` says of the journal, if that has been asked already.

    Returns:
        The page's path.

    Raises:
        CatchmarkError: the folder has no journal, or a damaged one.
    """
    folder = Path(folder)
    with closing(Journal(folder / JOURNAL, writable=False)) as journal:
        page = study_page(study, folder, journal, study.summarise(journal) if summary is None else summary)
    path = folder / "report.html"
    write_whole(path, page, "write it again")
    return path
