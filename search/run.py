"""One run of a recipe: its folder, its journal, its listeners, and what is left when it is over."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from search.errors import CatchmarkError
from search.experiment import Experiment
from search.journal import Journal
from search.loop import Listener
from search.recipe import RECIPES, load_recipe
from search.summary import write_json

JOURNAL, CONFIG, SUMMARY = "journal.sqlite", "config.yaml", "summary.json"


def run_recipe(
    recipe: Path,
    overrides: Mapping[str, str],
    runs: Path = Path("runs"),
    resume: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """Run a recipe from the start, or from where an earlier run of it stands.

    Args:
        recipe: the YAML file.
        overrides: replaced values by dotted key, as text.
        runs: the folder that holds run folders, as ``runs/NAME/ID``.
        resume: a run's folder, ``latest``, or None for a new run.
        dry_run: print the resolved recipe and what would be evaluated, and stop.
        quiet: no progress bar.

    Returns:
        The exit code.
    """
    experiment, resolved = load_recipe(recipe, overrides)
    if dry_run:
        print(resolved)
        for search, evaluations in experiment.planned().items():
            print(f"# {search}: {evaluations} evaluations")
        print(f"# in all: {sum(experiment.planned().values())} evaluations")
        return 0
    folder = _new_folder(runs / experiment.name) if resume is None else _old_folder(runs / experiment.name, resume)
    # A termination by the scheduler is an interruption: unwind, close the journal, and leave a run to go on with.
    signal.signal(signal.SIGTERM, _interrupt)
    journal = Journal(folder / JOURNAL)
    listeners: list[Listener] = []
    try:
        _settle(folder, journal, resolved)
        listeners = _listeners(folder, experiment, resolved, quiet)
        summary = experiment.run(folder, journal, listeners)
        write_json(folder / SUMMARY, summary)
        journal.set_about("status", "finished")
    finally:
        for listener in listeners:
            listener.close()
        journal.close()
    print(f"summary: {folder / SUMMARY}")
    print(f"report:  {_write_report(folder, experiment)}")
    return 0


def rewrite_report(folder: Path) -> Path:
    """The report of a run, finished or not, made again from its folder."""
    if not (folder / CONFIG).is_file():
        raise CatchmarkError(f"{folder} is not a run folder: it has no {CONFIG}")
    experiment, _ = load_recipe(folder / CONFIG)
    journal = Journal(folder / JOURNAL, writable=False)
    try:
        write_json(folder / SUMMARY, experiment.summarise(journal))
    finally:
        journal.close()
    return _write_report(folder, experiment)


def list_everything() -> str:
    """The recipes, spaces, tasks, pools and agents there are, a line each."""
    from search.agents.base import Agent
    from search.catalogue import find_classes
    from search.spaces.base import SearchSpace
    from search.tasks.base import Task, TaskPool

    lines = ["recipes"]
    for path in sorted(RECIPES.glob("**/*.yaml")):
        description = (yaml.safe_load(path.read_text()) or {}).get("description", "")
        lines.append(f"  {os.path.relpath(path):<40} {' '.join(description.split())[:100]}")
    for title, package, base in [
        ("spaces", "search.spaces", SearchSpace),
        ("tasks", "search.tasks", Task),
        ("task pools", "search.tasks", TaskPool),
        ("agents", "search.agents", Agent),
    ]:
        lines.append(title)
        for name, found in find_classes(package, base).items():
            lines.append(f"  {name:<24} {(found.__doc__ or '').strip().splitlines()[0]}")
    return "\n".join(lines)


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _new_folder(parent: Path) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ["", *(f"-{k}" for k in range(2, 1000))]:
        folder = parent / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise CatchmarkError(f"can't make the run folder {folder}: {error.strerror}") from error
        latest = parent / "latest"
        partial = parent / f".latest-{os.getpid()}"
        partial.symlink_to(folder.name)
        os.replace(partial, latest)
        return folder
    raise CatchmarkError(f"{parent} holds too many runs of this second")


def _old_folder(parent: Path, resume: str) -> Path:
    folder = parent / "latest" if resume == "latest" else Path(resume)
    if not (folder / JOURNAL).is_file():
        raise CatchmarkError(f"--resume: there is no run in {folder}; start one without --resume")
    return folder.resolve()


def _settle(folder: Path, journal: Journal, resolved: str) -> None:
    """Note the recipe and the environment in a new run; see that an old one has the same recipe."""
    earlier = journal.about("recipe")
    if earlier is None:
        (folder / CONFIG).write_text(resolved)
        journal.set_about("environment", json.dumps(_environment()))
        journal.set_about("recipe", resolved)
    elif differing := _differences(yaml.safe_load(earlier), yaml.safe_load(resolved)):
        raise CatchmarkError(
            f"--resume: the recipe differs from the run's in: {', '.join(differing)}; "
            f"resume with {folder / CONFIG}, or start a new run"
        )
    journal.set_about("status", "running")


def _differences(ours: Any, theirs: Any, key: str = "") -> list[str]:
    """Dotted keys in which two recipes differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = list(dict.fromkeys([*ours, *theirs]))
        return [
            each
            for name in names
            for each in _differences(ours.get(name), theirs.get(name), f"{key}.{name}" if key else str(name))
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


def _listeners(folder: Path, experiment: Experiment, resolved: str, quiet: bool) -> list[Listener]:
    listeners: list[Listener] = []
    if not quiet:
        from search.progress import ProgressBar

        listeners.append(ProgressBar(experiment.planned()))
    if os.environ.get("WANDB_MODE") != "disabled":
        from search.wandb_log import WandbLog

        listeners.append(WandbLog(folder, experiment.name, experiment.space, yaml.safe_load(resolved)))
    return listeners


def _write_report(folder: Path, experiment: Experiment) -> Path:
    from search.report import write_report

    return write_report(folder, experiment)
