"""Runs a study in its folder, and keeps there what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.loop.search import Listener
from search.runs.folders import JOURNAL, SUMMARY
from search.runs.journal import Journal, Outcome
from search.runs.json_files import write_json
from search.runs.provenance import settle
from search.studies.base import Study
from search.training.launch import Launch


def run_study(
    study: Study, resolved: str, folder: Path, launch: Launch, listen: Callable[[], list[Listener]]
) -> tuple[dict[str, Any], dict[str, Outcome]]:
    """Run a study from the start, or from where its folder stands.

    Args:
        study: what the recipe describes.
        resolved: the recipe, with every default.
        folder: of the run, which is there.
        launch: how this process was started.
        listen: makes the listeners, once the folder is known to be this recipe's.

    Returns:
        The summary, which is in the folder too, and how each search ended by its name.

    Raises:
        CatchmarkError: the folder is of another recipe, or another process runs in it.
    """
    journal = Journal(folder / JOURNAL)
    listeners: list[Listener] = []
    try:
        settle(folder, journal, resolved, launch)
        if study.unit != "epochs":  # the journal has evaluations
            journal.set_about("planned", str(sum(study.planned().values())))
        listeners = listen()
        summary = study.run(folder, journal, listeners)
        write_json(folder / SUMMARY, summary)
        journal.set_about("status", "finished")
        for listener in listeners:
            listener.summarised(summary)
        return summary, {name: journal.outcome(name) for name in journal.searches()}
    except KeyboardInterrupt:
        journal.set_about("status", "interrupted")
        raise
    finally:
        try:
            journal.close()  # first: whoever looks now, a listener too, finds a run that is not under way
        finally:
            for listener in listeners:
                listener.close()
