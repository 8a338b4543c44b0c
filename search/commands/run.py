"""One run of a recipe: its folder, its journal, its listeners, and what is left when it is over."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from search.distributed.joint_calls import JointCalls
from search.distributed.studies import joint_calls_of
from search.errors import CatchmarkError, RunError
from search.loop.search import Listener
from search.recipes.moved import paths_today
from search.recipes.recipe import RECIPES, load_recipe, read_recipe, shown_path
from search.recipes.trust import Trust, check_links, trust_of, with_trust
from search.recipes.yaml_text import parse_yaml
from search.runs.exit_codes import told_in_one_line
from search.runs.folders import CONFIG, JOURNAL, SUMMARY, choose_folder, old_folder, run_folders
from search.runs.interruption import termination_as_interruption
from search.runs.journal import Journal, Outcome
from search.runs.json_files import write_json
from search.runs.launch import Launch, find_launch
from search.studies.alone import train_alone
from search.studies.base import Study


def run_recipe(
    recipe: Path | None,
    overrides: Mapping[str, str],
    runs: Path = Path("runs"),
    resume: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    trust: str | Iterable[str] = (),
) -> int:
    """Run a recipe from the start, or from where an earlier run of it stands.

    Args:
        recipe: the YAML file; None for the one that the resumed run was started with.
        overrides: replaced values by dotted key, as text.
        runs: the folder that holds run folders, as ``runs/NAME/ID``.
        resume: a run's folder, its name below ``runs/NAME``, ``latest``, or None for a new run.
        dry_run: print the resolved recipe and what would be evaluated, and stop.
        quiet: no progress bar.
        trust: what else than catchmark's own may be named where the recipe is that of a run's folder, and by runs that
            a recipe names: classes, modules and packages by import path. A recipe that is named here is code, and may
            name anything.

    Where ``torchrun`` or ``srun`` has started several processes, the first of them runs the recipe and the others help
    (`search.distributed`).

    Returns:
        The exit code.

    Raises:
        CatchmarkError: the recipe is wrong, or there is no such run, or it is of another recipe.
        RunError: the run could not be finished; what was found is safe in its folder.
        Interrupted: the run was stopped.
    """
    allowed = trust_of(trust, everything=recipe is not None)
    if recipe is None:
        if resume is None:
            raise CatchmarkError("a recipe is needed, or a run to resume")
        recipe = old_folder(runs, resume) / CONFIG
        if not recipe.is_file():
            raise CatchmarkError(f"--resume: {recipe.parent} has no {CONFIG}; name the recipe too")
    launch = find_launch()
    if dry_run:
        if launch.rank == 0:
            _print_plan(*load_recipe(recipe, overrides, allowed), runs, resume)
        return 0
    if launch.ranks == 1:
        experiment, resolved = load_recipe(recipe, overrides, allowed)
        train_alone(experiment)
        return _run_in_folder(experiment, resolved, runs, resume, launch, quiet)
    from search.distributed.follower import Follower
    from search.distributed.leader import Leader

    if launch.rank > 0:
        follower = Follower(launch)
        with termination_as_interruption():
            return follower.follow(partial(_follow, launch, recipe, overrides, allowed))
    with Leader(launch) as leader, termination_as_interruption():
        experiment, resolved = load_recipe(recipe, overrides, allowed)
        leader.begin(joint_calls_of(experiment, leader.launch, leader.together), resolved)
        return _run_in_folder(experiment, resolved, runs, resume, leader.launch, quiet, leader.searching())


def _follow(launch: Launch, recipe: Path, overrides: Mapping[str, str], trust: Trust) -> tuple[JointCalls, str]:
    """What another rank than 0 does of a recipe."""
    experiment, resolved = load_recipe(recipe, overrides, trust)
    return joint_calls_of(experiment, launch), resolved


def _run_in_folder(
    experiment: Study,
    resolved: str,
    runs: Path,
    resume: str | None,
    launch: Launch,
    quiet: bool,
    around: AbstractContextManager[None] | None = None,
) -> int:
    shown = choose_folder(runs / experiment.name, resume, launch, resolved)
    print(f"run: {shown}", flush=True)
    folder = shown.absolute()  # wherever a task may go
    again = f"go on with: {_resuming(shown, resolved)}"
    with (
        told_in_one_line(folder, "what was evaluated is kept", again),
        termination_as_interruption(),
        around or nullcontext(),
    ):
        summary, outcomes = _run(folder, experiment, resolved, launch, quiet)
        report = _write_report(folder, experiment, summary)
        print(f"summary: {shown / SUMMARY}")
        print(f"report:  {shown / report.name}")
        _check_success(outcomes)
    return 0


def _resuming(folder: Path, recipe: str) -> str:
    """The command that goes on with a run."""
    return with_trust(f"catchmark run --resume {shlex.quote(str(folder))}", parse_yaml(recipe))


def _check_success(outcomes: Mapping[str, Outcome]) -> None:
    """Say how many evaluations failed.

    Raises:
        RunError: a search had no success at all.
    """
    from search.listeners.progress import shortened

    barren = {name: each for name, each in outcomes.items() if each.evaluations and each.failed == each.evaluations}
    if barren:
        raise RunError(
            "; ".join(
                f"{name}: none of {each.evaluations} evaluations succeeded, most often for: {shortened(each.reason)}"
                for name, each in barren.items()
            )
        )
    if failed := sum(each.failed for each in outcomes.values()):
        total = sum(each.evaluations for each in outcomes.values())
        with suppress(OSError, ValueError):  # nobody needs to be there to hear it
            print(f"failed: {failed} of {total} evaluations, the report says why", file=sys.stderr)


def _print_plan(experiment: Study, resolved: str, runs: Path, resume: str | None) -> None:
    """The recipe, and as comments behind it what it takes."""
    from search.commands.plan import Costs

    parent = runs / experiment.name
    folders = run_folders(parent) if resume is None else [old_folder(parent, resume)]
    costs = Costs(experiment, resolved, [folder / JOURNAL for folder in folders])
    print(resolved)
    planned = experiment.planned()
    for search, evaluations in planned.items():
        print(f"# {search}: {evaluations} {experiment.unit}, {costs.of(search, evaluations).in_words()}")
    total = sum((costs.of(*each) for each in planned.items()), start=costs.nothing)
    print(f"# in all: {sum(planned.values())} {experiment.unit}, {total.in_words()}")


def _run(
    folder: Path, experiment: Study, resolved: str, launch: Launch, quiet: bool
) -> tuple[dict[str, Any], dict[str, Outcome]]:
    journal = Journal(folder / JOURNAL)
    listeners: list[Listener] = []
    try:
        _settle(folder, journal, resolved, launch)
        listeners = _listeners(folder, experiment, resolved, quiet)
        summary = experiment.run(folder, journal, listeners)
        write_json(folder / SUMMARY, summary)
        journal.set_about("status", "finished")
        for listener in listeners:
            listener.summarised(summary)
        return summary, {name: journal.outcome(name) for name in journal.searches()}
    except KeyboardInterrupt:
        journal.set_about("status", "interrupted")
        raise
    finally:
        for listener in listeners:
            listener.close()
        journal.close()


def rewrite_report(folder: Path, trust: str | Iterable[str] = ()) -> Path:
    """The report of a run, finished or not, made again from its folder.

    Args:
        folder: it is data: nothing in it is executed.
        trust: as for `run_recipe`.

    Raises:
        CatchmarkError: it is no run's folder, is damaged, or names what is not trusted.
    """
    if not (folder / CONFIG).is_file():
        raise CatchmarkError(f"{folder} is not a run folder: it has no {CONFIG}")
    check_links(folder)
    experiment, _ = load_recipe(folder / CONFIG, trust=trust_of(trust))
    journal = Journal(folder / JOURNAL, writable=False)
    with told_in_one_line(folder, "the journal stays as it is", "write the report again"):
        try:
            write_json(folder / SUMMARY, summary := experiment.summarise(journal))
        finally:
            journal.close()
        return _write_report(folder, experiment, summary)


def list_everything() -> str:
    """The recipes, spaces, tasks, pools, agents, path samplers and tables there are, a line each."""
    from lightning_modules.path_samplers.base import PathSampler
    from search.agents.base import Agent
    from search.attributes.base import Attribute
    from search.recipes.catalogue import find_classes
    from search.spaces.base import SearchSpace
    from search.tables import SHIPPED
    from search.tasks.base import Task, TaskPool

    lines = ["recipes"]
    for path in sorted(RECIPES.glob("**/*.yaml")):
        recipe = read_recipe(path)
        description = " ".join(str(recipe.get("init_args", recipe).get("description", "")).split())
        lines.append(f"  {shown_path(path):<40} {textwrap.shorten(description, 100, placeholder=' ...')}".rstrip())
    for title, package, base in [
        ("spaces", "search.spaces", SearchSpace),
        ("tasks", "search.tasks", Task),
        ("task pools", "search.tasks", TaskPool),
        ("agents", "search.agents", Agent),
        ("attributes", "search.attributes", Attribute),
        ("path samplers", "lightning_modules.path_samplers", PathSampler),
    ]:
        lines.append(title)
        for name, found in find_classes(package, base).items():
            lines.append(f"  {name:<24} {(found.__doc__ or '').strip().splitlines()[0]}")
    lines += ["tables", *(f"  {name:<28} {holds}" for name, holds in SHIPPED.items())]
    return "\n".join(lines)


def _settle(folder: Path, journal: Journal, resolved: str, launch: Launch) -> None:
    """Note the recipe and the environment in a new run; see that an old one has the same recipe."""
    earlier = journal.about("recipe")
    if earlier is None:
        _write_config(folder, resolved)
        journal.set_about("environment", json.dumps(_environment()))
        journal.set_about("recipe", resolved)
    elif differing := _differences(paths_today(parse_yaml(earlier)), parse_yaml(resolved)):
        more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise CatchmarkError(
            f"--resume: the recipe differs from the run's in: {', '.join(differing[:8])}{more}; to go on with the "
            f"run's own recipe: {_resuming(folder, earlier)}"
        )
    else:
        _write_config(folder, earlier)
    journal.set_about("launch", launch.identity)
    journal.set_about("status", "running")


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


def _listeners(folder: Path, experiment: Study, resolved: str, quiet: bool) -> list[Listener]:
    from search.listeners.progress import FirstFailure, ProgressBar

    listeners: list[Listener] = []
    if sys.stderr is not None:  # it is None where it was closed before Python began
        listeners.append(FirstFailure())
        if not quiet:
            listeners.append(ProgressBar(experiment.planned(), unit=experiment.unit))
    if os.environ.get("WANDB_MODE") != "disabled":
        from search.listeners.wandb import wandb_listeners

        listeners += wandb_listeners(folder, experiment, parse_yaml(resolved))
    return listeners


def _write_report(folder: Path, experiment: Study, summary: dict[str, Any]) -> Path:
    from search.reports.pages import write_report

    return write_report(folder, experiment, summary)
