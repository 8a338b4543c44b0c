"""The contract of what a recipe describes: planned, run, resumed, summed up and reported in one way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError, one_line
from search.recipes.trust import RECIPE, Trust
from search.spaces.base import SearchSpace
from search.training.launch import Launch
from search.training.trainer_arguments import arguments_here

if TYPE_CHECKING:
    from search.executors.base import Executor
    from search.loop.search import Listener
    from search.runs.journal import Journal


class Study(ABC):
    """What a recipe describes.

    A recipe without ``class_path`` describes a `search.studies.experiment.Experiment`, agents on tasks; others name
    theirs.
    """

    name: str
    description: str
    space: SearchSpace
    seed: int
    unit: str = "evaluations"
    """What `planned` counts."""
    recipe: Mapping[str, Any] | None = None
    """The arguments that the recipe gives, defaults included, as plain values; None of a study made in Python."""
    log_children: bool = False
    """Whether every child network is a W&B run of its own."""
    executor: Executor | None = None
    """Where its jobs run; None for this process, one after another."""
    trust: Trust = RECIPE
    """What its recipe was allowed to name: who reads that again, in another process, is to allow no more."""

    @abstractmethod
    def planned(self) -> dict[str, int]:
        """Every part by name, and how many units it takes, in the order in which they run."""

    def trainers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The arguments of every Lightning Trainer, each with its key in the recipe."""
        return iter(())

    def priced_by(self, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
        """What of a recipe of such a study decides what one unit takes: a run of the same then says it.

        Args:
            recipe: the arguments, as `recipe` has them.
        """
        return {key: value for key, value in recipe.items() if key not in ("description", "name", "seed", "trials")}

    def check_trainers(self, launch: Launch | None = None) -> None:
        """Refuse Trainers that are meant for other processes than there are, before anything is evaluated.

        Args:
            launch: how this process was started; None to look.

        Raises:
            CatchmarkError: a recipe for several processes, which nobody has started, or for another number of them.
        """
        if self.executor is not None and self.executor.starts_processes:
            launch = Launch(worker=True)
        for key, arguments in self.trainers():
            arguments_here(arguments, key, launch=launch)

    @abstractmethod
    def run(self, folder: Path, journal: Journal, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
        """Run every part, or go on with it; returns the summary."""

    @abstractmethod
    def summarise(self, journal: Journal) -> dict[str, Any]:
        """What the journal holds so far, as ``summary.json`` has it."""

    def in_words(self, summary: Mapping[str, Any]) -> str:
        """What the terminal says of a finished run besides where its files are; empty where these say it better."""
        return ""


def built(key: str, make: Callable[[], Any]) -> Any:
    """Build an object of the recipe; what it refuses is said with the recipe's key."""
    try:
        return make()
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        raise CatchmarkError(f"{key}: {one_line(error)}") from error
