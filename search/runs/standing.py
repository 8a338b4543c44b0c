"""Where runs stand, read from their folders alone: they may be going on, and are not disturbed."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from search.errors import CatchmarkError
from search.runs.folders import JOURNAL
from search.runs.journal import Journal
from search.runs.locking import holder_of


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Attributes:
        folder: the run's.
        state: ``running``, ``finished``, ``stopped`` (it can go on) or ``damaged``.
        process: that runs it on this machine.
        done: evaluations that are in its journal.
        planned: how many there will be at most; None of a run that is finished, has supernets or is of an earlier
            version.
        written: when its journal was last written, in seconds since the epoch.
    """

    folder: Path
    state: str
    process: int | None
    done: int
    planned: int | None
    written: float


def find_runs(parent: Path) -> list[Standing]:
    """Every run below a folder, the one that wrote last first. Links are not followed."""
    found = []
    for place, folders, files in os.walk(parent):
        if JOURNAL in files:
            found.append(standing_of(Path(place)))
            folders.clear()  # what lies in a run's folder is the run's
    return sorted(found, key=lambda each: each.written, reverse=True)


def standing_of(folder: Path) -> Standing:
    """Where one run stands."""
    journal = folder / JOURNAL
    written = written_at(journal)
    process = holder_of(journal.with_suffix(".lock"))
    try:
        with closing(Journal(journal, writable=False)) as opened:
            done = sum(opened.outcome(search).evaluations for search in opened.searches())
            finished = opened.about("status") == "finished"
            planned = None if finished else opened.about("planned")
    except CatchmarkError:
        return Standing(folder, "damaged" if process is None else "running", process, 0, None, written)
    state = "running" if process is not None else "finished" if finished else "stopped"
    return Standing(folder, state, process, done, None if planned is None else int(planned), written)


def written_at(journal: Path) -> float:
    """When a journal was last written, in seconds since the epoch."""
    # SQLite writes beside the file first.
    return max(path.stat().st_mtime for path in (journal, Path(f"{journal}-wal")) if path.exists())
