"""What a recipe's evaluations will take, as far as anybody knows before they are made.

A look-up says itself what it stands for (`Evaluation.cost_seconds`); what a training takes is known from an earlier run
of the same recipe, however short that was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search.errors import CatchmarkError
from search.evaluation import Proposal
from search.executors.inline import evaluate_all
from search.randomness import derive_seed
from search.recipes.moved import paths_today
from search.recipes.yaml_text import parse_yaml
from search.reports.page import duration
from search.runs.journal import Journal
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.studies.meta_training import PHASE
from search.tasks.base import Task

_SAMPLE = 20
"""Look-ups that are made to see what they are said to cost."""
_FREE = ("agents", "batch", "budget", "budget_seconds", "description", "executor", "most_failures", "seed", "trials")
"""Keys of a recipe that don't change what one evaluation takes."""


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


class Costs:
    """The costs of a recipe's searches.

    Args:
        study: what the recipe describes.
        resolved: the recipe, with every default.
        journals: of earlier runs that may be of the same recipe, the newest first.
    """

    nothing = Cost()

    def __init__(self, study: Study, resolved: str, journals: Sequence[Path]):
        self.study = study
        self._recipe, self._journals = _essence(resolved), journals

    def of(self, search: str, units: int) -> Cost:
        """What a search takes, or a study's part.

        Args:
            search: its name in `Study.planned`.
            units: how many evaluations or epochs it plans.
        """
        for task in self._look_ups(search):
            space = task.space
            seed = derive_seed("cost")
            archs = [space.draw(seed, "cost", draw) for draw in range(_SAMPLE)]
            evaluations = evaluate_all(task, [Proposal(arch) for arch in archs])
            if seconds := [each.cost_seconds for each in evaluations if each.status == "ok"]:
                return Cost(units * sum(seconds) / len(seconds), basis="said of look-ups")
            return Cost(unknown=True)
        for path in self._journals:
            with _reading(path) as journal:
                if journal is None or _essence(journal.about("recipe") or "") != self._recipe:
                    continue
                each, basis = self._measured(journal, search)
                if each is not None:
                    return Cost(units * each, basis=f"{basis} in {path.parent}")
        return Cost(unknown=True)

    def _look_ups(self, search: str) -> Iterator[Task]:
        """The task of a search, if it is one of look-ups."""
        if not isinstance(self.study, Experiment):
            return
        for phase in self.study.phases:
            if phase.search == search:
                task = phase.pool.draw(0, derive_seed(self.study.seed, "pool"))
                if task.instant:
                    yield task
                return
        for part in search.split("/"):
            if part in self.study.targets and self.study.targets[part].instant:
                yield self.study.targets[part]

    def _measured(self, journal: Journal, search: str) -> tuple[float | None, str]:
        """Seconds of a unit of a search, and how they are known: by itself, or by others on the same task."""
        if not isinstance(self.study, Experiment):
            finished, seconds = journal.progress(search)
            units = self.study.planned()[search]
            return (seconds / units if finished and seconds else None), f"measured over {units} {self.study.unit}"
        first, _, second = search.partition("/")
        target = first if first in self.study.targets or first == PHASE else second
        begun = journal.searches()
        for alike in ([search], [name for name in begun if name.startswith(f"{target}/")]):
            evaluations = [record.evaluation for name in alike for record in journal.records(name)]
            # What has failed says nothing of what a network takes.
            if seconds_of := [each.cost_seconds for each in evaluations if each.status == "ok"]:
                return sum(seconds_of) / len(seconds_of), f"the mean of {len(seconds_of)} measured"
        return None, ""


def _essence(resolved: str) -> object:
    """What of a recipe decides what an evaluation takes."""
    recipe = paths_today(parse_yaml(resolved))
    recipe = recipe.get("init_args", recipe) if isinstance(recipe, dict) else None
    return {key: value for key, value in recipe.items() if key not in _FREE} if isinstance(recipe, dict) else None


@contextmanager
def _reading(path: Path) -> Iterator[Journal | None]:
    """A journal, or None where it can't be read: it may be damaged, or just being made."""
    try:
        journal = Journal(path, writable=False)
    except CatchmarkError:
        yield None
        return
    try:
        yield journal
    finally:
        journal.close()
