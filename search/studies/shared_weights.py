"""The score of an architecture with the shared weights of a trained supernet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError
from search.evaluation import Evaluation, Proposal
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne

if TYPE_CHECKING:
    from lightning_modules.objectives.base import Objective


class SharedWeightsTask(OneByOne):
    """A trained supernet as a task: any agent can search on it, and an evaluation takes a fraction of a second.

    Args:
        space: the supernet's.
        run: the folder of a run of a `SupernetStudy`, finished or not. It is data, whatever names it: classes of
            your own that its recipe names need the command's ``--trust``.
        method: which of its methods' supernets.
        trial: which repetition.
        images: to evaluate on; None for all that the study keeps for it.

    Raises:
        CatchmarkError: there is no such run or method, or the space is another one.
    """

    def __init__(self, space: SearchSpace, run: str, method: str, trial: int = 0, images: int | None = None):
        from search.recipes.recipe import load_recipe
        from search.recipes.trust import granted
        from search.studies.supernet_job import checkpoint_of
        from search.studies.supernet_study import SupernetStudy

        self.space, folder = space, Path(run)
        if not (folder / "config.yaml").is_file():
            raise CatchmarkError(f"run: '{run}' is not a run's folder: it has no config.yaml")
        study, _ = load_recipe(folder / "config.yaml", trust=granted())
        if not isinstance(study, SupernetStudy):
            raise CatchmarkError(f"run: '{run}' did not train a supernet")
        if method not in study.methods:
            raise CatchmarkError(f"method: '{method}' is not one of: {', '.join(study.methods)}")
        if study.space.name != space.name:
            raise CatchmarkError(f"run: the supernet is one of the space '{study.space.name}', not '{space.name}'")
        self._module = study.training.load_module(checkpoint_of(folder, f"{method}-{trial}"), method, trial)
        batches, self._calibration = study.training.evaluation_batches()
        self._batches = batches if images is None else _first(self._module.objective, batches, images)
        self.score_name = f"{study.score_name} with shared weights"

    @classmethod
    def toy(cls) -> dict[str, Any] | None:
        """Its files do not ship."""
        return None

    def evaluate_one(self, proposal: Proposal) -> Evaluation:
        """The score with the shared weights; the seed changes nothing."""
        from lightning_modules.supernet import evaluate_paths

        began, architecture = time.monotonic(), self.space.check(proposal.architecture)
        (worth,) = evaluate_paths(self._module, [architecture], self._batches, self._calibration)
        return Evaluation(worth.score, {"loss": worth.loss}, time.monotonic() - began)


def _first(objective: Objective, batches: Sequence[Any], images: int) -> list[Any]:
    """The first images of some batches."""
    some: list[Any] = []
    for batch in batches:
        left = images - sum(map(objective.images, some))
        if left <= 0:
            break
        some.append(objective.first(batch, left))
    return some
