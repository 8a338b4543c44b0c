"""``catchmark run``: one run of a recipe, from its YAML file to its report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from search.commands import TRUST, add_trust
from search.errors import CatchmarkError, RunError, nearest

if TYPE_CHECKING:
    from search.distributed.joint_fit import StudyCalls
    from search.loop.search import Listener
    from search.recipes.trust import Trust
    from search.runs.journal import Outcome
    from search.studies.base import Study
    from search.training.launch import Launch

HELP = "Run a recipe, or go on with a run that was stopped."
MORE = (
    "Classes that a recipe names by import path are looked for among the installed packages and in the current folder."
)
EXAMPLE = "catchmark run experiments/quickstart.yaml --budget 10 --agents.catch_meta.settings.candidates 40"
NAMES_CODE = ("recipe",)

FLAGS = ("-h", "--help", "--dry-run", "--tiny", "--quiet")
OPTIONS = ("--resume", "--runs", "--join")
"""What ``catchmark run`` keeps for itself, with `TRUST`; every other ``--key`` replaces a value of the recipe."""
_KEY = "--KEY"


# ---- the command line ------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which recipe, what to replace in it, and where the run goes."""
    parser.usage = (
        "catchmark run RECIPE [--KEY VALUE ...] [--resume [RUN]] [--runs FOLDER] [--join RUN] [--trust NAME] "
        "[--dry-run] [--tiny] [--quiet]"
    )
    parser.add_argument("recipe", nargs="?", help="a YAML file; 'catchmark list' names those that ship")
    keys = parser.add_argument_group("values of the recipe")
    keys.add_argument(
        _KEY,
        metavar="VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="replaces a value by its dotted key, as YAML; 'init_args' may be left out of the key, and --agent.NAME "
        "is for every agent that takes NAME",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="RUN",
        help="go on with the run in this folder, for which no recipe need be named, or with the recipe's latest run",
    )
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where run folders go (default: %(default)s)")
    parser.add_argument(
        "--join",
        metavar="RUN",
        help="share the run in this folder, which is made where it is not there, with all that were started so; its "
        "recipe needs a JoinedExecutor",
    )
    add_trust(parser)
    parser.add_argument("--dry-run", action="store_true", help="check and print the resolved recipe, run nothing")
    parser.add_argument("--tiny", action="store_true", help="cut it to seconds, to see whether it runs")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def rewrite(words: Sequence[str]) -> list[str]:
    """The words of ``catchmark run``, in any order, as argparse can read them: ``--budget 10`` as ``--KEY=budget=10``.

    Raises:
        CatchmarkError: a value is missing, or a word stands alone.
    """
    rest: list[str] = []
    recipe: str | None = None
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        follows = waiting[0] if waiting and not waiting[0].startswith("--") else None
        if word in FLAGS or (equals and name in (*OPTIONS, TRUST)):
            rest.append(word)
        elif word in (*OPTIONS, TRUST):
            if word == "--resume" and (follows is None or Path(follows).suffix in (".yaml", ".yml")):
                rest.append("--resume=latest")  # what follows is the recipe, not the run
            elif follows is not None:
                rest.append(f"{word}={waiting.pop(0)}")
            else:
                raise CatchmarkError(f"{word} needs a value, as in {word} VALUE")
        elif name in FLAGS:
            raise CatchmarkError(f"{name} takes no value")
        elif name.startswith("--") and name != "--":
            if not equals:
                if follows is None:
                    raise CatchmarkError(f"{word} needs a value, as in {word} VALUE{option_meant(name)}")
                value = waiting.pop(0)
            if near := option_meant(name):
                raise CatchmarkError(f"{name} is not an option{near}")
            rest.append(f"{_KEY}={name[2:]}={value}")
        elif recipe is not None or word.startswith("-"):
            raise CatchmarkError(f"'{word}' stands alone; a value of the recipe is replaced with --key value")
        else:
            recipe = word
            rest.append(word)
    return rest


def option_meant(name: str) -> str:
    """Which option was likely meant by a key. Never ``--trust``: SupernetStudy has a value ``truth``."""
    return nearest(name, [*FLAGS[1:], *OPTIONS], "", cutoff=0.8)


def run(chosen: argparse.Namespace) -> int:
    """Run the recipe, or go on with a run."""
    if chosen.recipe is None and chosen.resume in (None, "latest"):
        raise CatchmarkError("run: which recipe? For example: catchmark run experiments/quickstart.yaml")
    return run_recipe(
        None if chosen.recipe is None else Path(chosen.recipe),
        dict(each.split("=", 1) for each in chosen.overrides),
        runs=Path(chosen.runs),
        resume=chosen.resume,
        dry_run=chosen.dry_run,
        quiet=chosen.quiet,
        trust=chosen.trust,
        tiny=chosen.tiny,
        join=chosen.join,
    )


# ---- what it does ----------------------------------------------------------------------------------------------------


def run_recipe(
    recipe: Path | None,
    overrides: Mapping[str, str],
    runs: Path = Path("runs"),
    resume: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    trust: str | Iterable[str] = (),
    tiny: bool = False,
    join: str | None = None,
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
        tiny: cut the recipe to seconds, to see whether it runs.
        join: the folder of a run that this process shares with others (`search.distributed.join`); None for a run of
            its own.

    Where ``torchrun`` or ``srun`` has started several processes, the first of them runs the recipe and the others help
    (`search.distributed`).

    Returns:
        The exit code.

    Raises:
        CatchmarkError: the recipe is wrong, or there is no such run, or it is of another recipe.
        RunError: the run could not be finished; what was found is safe in its folder.
        Interrupted: the run was stopped.
    """
    from search.recipes.recipe import load_recipe
    from search.recipes.trust import trust_of
    from search.runs.folders import CONFIG, old_folder
    from search.training.launch import find_launch

    allowed = trust_of(trust, everything=recipe is not None)
    if recipe is None:
        if resume is None:
            raise CatchmarkError("a recipe is needed, or a run to resume")
        recipe = old_folder(runs, resume) / CONFIG
        if not recipe.is_file():
            raise CatchmarkError(f"--resume: {recipe.parent} has no {CONFIG}; name the recipe too")
    if join is not None and resume is not None:
        raise CatchmarkError("--join: whoever joins a run goes on with it; leave out --resume")
    launch = find_launch()
    if join is not None and launch.ranks > 1:
        raise CatchmarkError("--join: start each process by itself, not by torchrun or as tasks of one srun")
    if dry_run:
        if launch.rank == 0:
            from search.reports.plan import plan_of

            print(plan_of(*load_recipe(recipe, overrides, allowed, tiny), runs, resume))
        return 0
    if launch.ranks == 1:
        study, resolved = load_recipe(recipe, overrides, allowed, tiny)
        study.check_trainers(launch)
        if join is not None:
            return _join(study, resolved, runs, Path(join), launch, quiet)
        return _run_in_folder(study, resolved, runs, resume, launch, quiet)
    from search.distributed.follower import Follower
    from search.distributed.joint_fit import joint_calls_of
    from search.distributed.leader import Leader
    from search.training.interruption import termination_as_interruption

    if launch.rank > 0:
        follower = Follower(launch)
        with termination_as_interruption():
            return follower.follow(partial(_follow, launch, recipe, overrides, allowed, tiny))
    with Leader(launch) as leader, termination_as_interruption():
        study, resolved = load_recipe(recipe, overrides, allowed, tiny)
        calls = joint_calls_of(study, leader.launch, leader.together)
        leader.begin(calls, resolved)
        return _run_in_folder(calls.study, resolved, runs, resume, leader.launch, quiet, leader.searching())


def _follow(
    launch: Launch, recipe: Path, overrides: Mapping[str, str], trust: Trust, tiny: bool
) -> tuple[StudyCalls, str]:
    """What another rank than 0 does of a recipe."""
    from search.distributed.joint_fit import joint_calls_of
    from search.recipes.recipe import load_recipe

    study, resolved = load_recipe(recipe, overrides, trust, tiny)
    return joint_calls_of(study, launch), resolved


def _join(study: Study, resolved: str, runs: Path, folder: Path, launch: Launch, quiet: bool) -> int:
    """Share a run with other processes, from here or from other machines."""
    from search.distributed.join import join
    from search.training.interruption import termination_as_interruption

    folder.mkdir(parents=True, exist_ok=True)

    def lead() -> int:
        return _run_in_folder(study, resolved, runs, None, launch, quiet, place=folder)

    with termination_as_interruption():
        return join(study, folder.absolute(), lead)


def _run_in_folder(
    study: Study,
    resolved: str,
    runs: Path,
    resume: str | None,
    launch: Launch,
    quiet: bool,
    around: AbstractContextManager[None] | None = None,
    place: Path | None = None,
) -> int:
    from search.runs.exit_codes import told_in_one_line
    from search.runs.folders import SUMMARY, choose_folder
    from search.runs.provenance import resuming
    from search.studies.run_study import run_study
    from search.training.interruption import termination_as_interruption

    shown = choose_folder(runs / study.name, resume, launch, resolved) if place is None else place
    print(f"run: {shown}", flush=True)
    folder = shown.absolute()  # wherever a task may go
    again = f"go on with: {resuming(shown, resolved)}"
    with (
        told_in_one_line(folder, "what was evaluated is kept", again),
        termination_as_interruption(),
        around or nullcontext(),
    ):
        listen = partial(_listeners, folder, study, resolved, quiet)
        summary, outcomes = run_study(study, resolved, folder, launch, listen)
        from search.reports.pages import write_report

        report = write_report(folder, study, summary)
        if words := study.in_words(summary):
            print(words)
        print(f"summary: {shown / SUMMARY}")
        print(f"report:  {shown / report.name}")
        _check_success(outcomes)
    return 0


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


def _listeners(folder: Path, study: Study, resolved: str, quiet: bool) -> list[Listener]:
    from search.listeners.live_page import LivePage
    from search.listeners.progress import FirstFailure, ProgressBar
    from search.listeners.tensorboard import tensorboard_listeners

    listeners: list[Listener] = [LivePage(folder, study)]
    if sys.stderr is not None:  # it is None where it was closed before Python began
        listeners.append(FirstFailure())
        if not quiet:
            listeners.append(ProgressBar(study.planned(), unit=study.unit))
    if os.environ.get("WANDB_MODE") != "disabled":
        from search.listeners.wandb import wandb_listeners
        from search.recipes.yaml_text import parse_yaml

        listeners += wandb_listeners(folder, study, parse_yaml(resolved))
    return listeners + tensorboard_listeners(folder)
