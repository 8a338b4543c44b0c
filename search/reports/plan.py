"""What a recipe plans, and what that will take, as far as anybody knows before it is done.

A look-up says itself what it stands for (`Evaluation.cost_seconds`); what a training takes is known from an earlier run
of the same recipe, however short that was.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from search.errors import CatchmarkError
from search.evaluation import Proposal
from search.executors.inline import evaluate_all
from search.randomness import derive_seed
from search.recipes.moved import paths_today
from search.recipes.yaml_text import parse_yaml
from search.reports.page import duration
from search.runs.folders import JOURNAL, old_folder, run_folders
from search.runs.journal import Journal
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.studies.meta_training import PHASE
from search.tasks.base import Task

_SAMPLE = 20
"""Look-ups that are made to see what they are said to cost."""


def plan_of(study: Study, resolved: str, runs: Path, resume: str | None) -> str:
    """The recipe, and as comments behind it what it takes.

    Args:
        study: what the recipe describes.
        resolved: the recipe, with every default.
        runs: the folder that holds run folders, as ``runs/NAME/ID``; earlier runs of the recipe say what it takes.
        resume: the run that is to go on, as `search.runs.folders.old_folder` takes it, or None.
    """
    parent = runs / study.name
    folders = run_folders(parent) if resume is None else [old_folder(parent, resume)]
    journals = [folder / JOURNAL for folder in folders]
    planned = study.planned()
    costs = {search: cost_of(study, resolved, journals, search) for search in planned}
    lines = [f"# {search}: {units} {study.unit}, {costs[search].in_words()}" for search, units in planned.items()]
    total = sum(costs.values(), start=Cost())
    return "\n".join([resolved, *lines, f"# in all: {sum(planned.values())} {study.unit}, {total.in_words()}"])


@dataclass(frozen=True)
class Cost:
    """What some evaluations take.

    Attributes:
        seconds: of those that are known.
        unknown: whether there are others.
        basis: how that is known.
    """

    seconds: float = 0.0
    unknown: bool = False
    basis: str = ""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.unknown or other.unknown)

    def in_words(self) -> str:
        """For a person."""
        if self.unknown:
            known = f"{duration(self.seconds)} and " if self.seconds else ""
            return f"cost: {known}what is unknown until an evaluation was made"
        return f"cost: {duration(self.seconds)}{f' ({self.basis})' if self.basis else ''}"


def cost_of(study: Study, resolved: str, journals: Sequence[Path], search: str) -> Cost:
    """What a search takes, or another part of a study.

    Args:
        study: what the recipe describes.
        resolved: the recipe, with every default.
        journals: of earlier runs that may be of the same recipe, the newest first.
        search: its name in `Study.planned`.
    """
    units = study.planned()[search]
    if (task := _look_up(study, search)) is not None:
        seed = derive_seed("cost")
        archs = [task.space.draw(seed, "cost", draw) for draw in range(_SAMPLE)]
        evaluations = evaluate_all(task, [Proposal(arch) for arch in archs])
        if seconds := [each.cost_seconds for each in evaluations if each.status == "ok"]:
            return Cost(units * sum(seconds) / len(seconds), basis="said of look-ups")
        return Cost(unknown=True)
    for path in journals:
        try:
            journal = Journal(path, writable=False)
        except CatchmarkError:  # it may be damaged, or just being made
            continue
        with closing(journal):
            if _essence(study, journal.about("recipe") or "") == _essence(study, resolved):
                seconds_each, basis = _measured(study, journal, search)
                if seconds_each is not None:
                    return Cost(units * seconds_each, basis=f"{basis} in {path.parent}")
    return Cost(unknown=True)


def _look_up(study: Study, search: str) -> Task | None:
    """The task of a search, if it is one of look-ups."""
    if not isinstance(study, Experiment):
        return None
    for phase in study.phases:
        if phase.search == search:
            task = phase.pool.draw(0, derive_seed(study.seed, "pool"))
            return task if task.instant else None
    for part in search.split("/"):
        if part in study.targets and study.targets[part].instant:
            return study.targets[part]
    return None


def _measured(study: Study, journal: Journal, search: str) -> tuple[float | None, str]:
    """Seconds of a unit of a search, and how they are known: by itself, or by others on the same task."""
    if not isinstance(study, Experiment):
        finished, seconds = journal.progress(search)
        units = study.planned()[search]
        return (seconds / units if finished and seconds else None), f"measured over {units} {study.unit}"
    first, _, second = search.partition("/")
    target = first if first in study.targets or first == PHASE else second
    begun = journal.searches()
    for alike in ([search], [name for name in begun if name.startswith(f"{target}/")]):
        evaluations = [record.evaluation for name in alike for record in journal.records(name)]
        # What has failed says nothing of what a network takes.
        if seconds_of := [each.cost_seconds for each in evaluations if each.status == "ok"]:
            return sum(seconds_of) / len(seconds_of), f"the mean of {len(seconds_of)} measured"
    return None, ""


def _essence(study: Study, resolved: str) -> object:
    """What of a recipe decides what a unit takes; None where it is no recipe."""
    recipe = paths_today(parse_yaml(resolved))
    if not isinstance(recipe, dict):
        return None
    return recipe.get("class_path"), study.priced_by(recipe.get("init_args", recipe))
