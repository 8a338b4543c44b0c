"""What the page of every run says of where it comes from, and how to make it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from search.recipes.trust import with_trust
from search.recipes.yaml_text import parse_yaml
from search.runs.folders import CONFIG, shown_path
from search.runs.journal import Journal
from search.studies.base import Study


def provenance(folder: Path, study: Study, journal: Journal) -> dict[str, Any]:
    """Title, description, recipe, environment and commands of a run, as the templates name them.

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
    }
