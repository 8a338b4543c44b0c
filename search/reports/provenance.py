"""What the page of every run says of where it comes from, and how to make it again."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

from search.recipes.trust import with_trust
from search.recipes.yaml_text import parse_yaml
from search.runs.folders import CONFIG, JOURNAL, shown_path
from search.runs.journal import Journal
from search.runs.locking import holder_of
from search.runs.standing import written_at
from search.studies.base import Study

_REFRESH_SECONDS = 30
"""After which a browser loads the page of a run under way again; of an old page after a tenth of its age."""
_SILENCE_SECONDS = 600
"""So old the page of a run under way wonders whether that still goes on."""


def provenance(folder: Path, study: Study, journal: Journal) -> dict[str, Any]:
    """Title, description, recipe, environment, commands and standing of a run, as the templates name them.

    Args:
        folder: of the run.
        study: what its recipe describes.
        journal: of the run.
    """
    path, shown = folder / CONFIG, shown_path(folder)
    config = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {
        "title": study.name or folder.resolve().name,
        "description": " ".join(study.description.split()),
        "config": config,
        "environment": json.loads(journal.about("environment") or "{}"),
        "command": f"catchmark run {shlex.quote(f'{shown}/{CONFIG}')}",
        "resume": with_trust(f"catchmark run --resume {shlex.quote(shown)}", parse_yaml(config)),
        "running": _running(folder / JOURNAL),
    }


def _running(journal: Path) -> dict[str, Any] | None:
    """Of a run that goes on: when it was written last, when its page is, and how often that is to be looked at.

    The page of a run that is killed stays as it is, so the page itself has to notice that nobody writes it any more.
    """
    if holder_of(journal.with_suffix(".lock")) is None:
        return None
    now = time.time()
    return {
        "journal": _moment(written_at(journal)),
        "page": _moment(now),
        "written": int(now),
        "seconds": _REFRESH_SECONDS,
        "silence": _SILENCE_SECONDS,
    }


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))
