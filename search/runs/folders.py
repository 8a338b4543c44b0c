"""Run folders: ``runs/NAME/ID``, one a run, and ``latest`` that leads to the newest."""

from __future__ import annotations

import os
import sys
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from search.errors import CatchmarkError
from search.recipes.trust import check_links
from search.runs.journal import Journal
from search.training.launch import Launch

JOURNAL, CONFIG, SUMMARY = "journal.sqlite", "config.yaml", "summary.json"


def choose_folder(parent: Path, resume: str | None, launch: Launch, resolved: str) -> Path:
    """Where a run goes on or begins; one that its launcher has started again goes on.

    Args:
        parent: the folder of the recipe's runs.
        resume: what `old_folder` takes, or None.
        launch: how the process was started.
        resolved: the recipe, with every default.

    Raises:
        CatchmarkError: there is no such run, or no folder can be made.
    """
    if resume is not None:
        return old_folder(parent, resume)
    if launch.restarts and launch.identity:
        for folder in run_folders(parent):
            with suppress(CatchmarkError):  # a damaged one is none of ours
                with closing(Journal(folder / JOURNAL, writable=False)) as journal:
                    ours = journal.about("launch") == launch.identity and journal.about("recipe") == resolved
                if ours:
                    print(f"{launch.identity} was started again: going on in {folder}", file=sys.stderr)
                    return folder
    return new_folder(parent)


def run_folders(parent: Path) -> list[Path]:
    """The run folders below one, the newest first."""
    found = [path.parent for path in parent.glob(f"*/{JOURNAL}") if not path.parent.is_symlink()]
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


def old_folder(parent: Path, resume: str) -> Path:
    """The run that is to go on.

    Args:
        parent: the folder of the recipe's runs.
        resume: a run's folder, its name below that one, or ``latest``.

    Raises:
        CatchmarkError: there is none, or it has a link that leads out of it.
    """
    for folder in (parent / "latest",) if resume == "latest" else (Path(resume), parent / resume):
        if (folder / JOURNAL).is_file():
            found = settled(folder)
            check_links(found)
            return found
    place = parent / "latest" if resume == "latest" else Path(resume)
    raise CatchmarkError(f"--resume: there is no run in {place}; start one without --resume")


def settled(run: Path) -> Path:
    """The folder that a link such as ``latest`` leads to now; it may lead elsewhere later."""
    return run.parent / os.readlink(run) if run.is_symlink() else run


def new_folder(parent: Path) -> Path:
    """A fresh run folder, named by the time; ``latest`` beside it leads there."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ["", *(f"-{k}" for k in range(2, 1000))]:
        folder = parent / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if parent.is_dir():
                continue
            raise CatchmarkError(f"can't make the run folder {folder}: {parent} is a file") from None
        except OSError as error:
            raise CatchmarkError(f"can't make the run folder {folder}: {error.strerror}") from error
        try:
            partial = parent / f".latest-{os.getpid()}"
            partial.symlink_to(folder.name)
            os.replace(partial, parent / "latest")
        except OSError as error:  # a file system without links, or something of the user's that is called so
            partial.unlink(missing_ok=True)
            print(f"no link {parent / 'latest'} ({error.strerror}); the run is in {folder}", file=sys.stderr)
        return folder
    raise CatchmarkError(f"{parent} holds too many runs of this second")


def shown_path(folder: Path) -> str:
    """A path as a reader would type it: relative to where the command runs, where it is below."""
    resolved = Path(folder).resolve()
    return os.path.relpath(resolved) if resolved.is_relative_to(Path.cwd()) else str(resolved)
