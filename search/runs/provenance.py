"""What a run's folder notes of where its results come from: the recipe, and what it ran on."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, join
from search.recipes.moved import ADDED, paths_today
from search.recipes.trust import with_trust
from search.recipes.yaml_text import parse_yaml
from search.runs.folders import CONFIG
from search.runs.journal import Journal
from search.training.launch import Launch


def settle(folder: Path, journal: Journal, resolved: str, launch: Launch) -> None:
    """Note the recipe and the environment in a new run; see that an old one has the same recipe.

    Args:
        folder: of the run.
        journal: of the run.
        resolved: the recipe, with every default.
        launch: how this process was started.

    Raises:
        CatchmarkError: the run is of another recipe; says what differs.
    """
    earlier = journal.about("recipe")
    if earlier is None:
        _write_config(folder, resolved)
        journal.set_about("environment", json.dumps(_environment()))
        journal.set_about("recipe", resolved)
    elif differing := _differences(paths_today(parse_yaml(earlier)), parse_yaml(resolved)):
        more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise CatchmarkError(
            f"--resume: the recipe differs from the run's in: {', '.join(differing[:8])}{more}; to go on with the "
            f"run's own recipe: {resuming(folder, earlier)}"
        )
    else:
        _write_config(folder, earlier)
    journal.set_about("launch", launch.identity)
    journal.set_about("status", "running")


def resuming(folder: Path, recipe: str) -> str:
    """The command that goes on with a run."""
    return with_trust(f"catchmark run --resume {shlex.quote(str(folder))}", parse_yaml(recipe))


def _write_config(folder: Path, recipe: str) -> None:
    """Other processes read the recipe there: it must be the one that was allowed here, whatever lay in the folder."""
    path, content = folder / CONFIG, recipe.encode()
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)


def _differences(ours: Any, theirs: Any, key: str = "") -> list[str]:
    """Dotted keys in which two recipes differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = list(dict.fromkeys([*ours, *theirs]))
        return [
            each
            for name in names
            if name in ours or name not in ADDED or theirs[name] != ADDED[name]
            for each in _differences(ours.get(name), theirs.get(name), join(key, name))
        ]
    return [] if ours == theirs else [key]


def _environment() -> dict[str, Any]:
    import torch

    from search import __version__

    return {
        "catchmark": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["catchmark", *sys.argv[1:]]),
    }
