"""Which page a run has: that of what its recipe describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from search.errors import RunError, one_line
from search.runs.journal import Journal
from search.studies.base import Study


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
    journal = Journal(folder / "journal.sqlite", writable=False)
    try:
        page = study.page(folder, journal, study.summarise(journal) if summary is None else summary)
    finally:
        journal.close()
    path, partial = folder / "report.html", folder / "report.partial"
    try:
        partial.write_text(page, encoding="utf-8", errors="replace")
        os.replace(partial, path)
    except OSError as error:
        raise RunError(
            f"{path} could not be written ({one_line(error)}): see to the disk, then write it again"
        ) from error
    return path
