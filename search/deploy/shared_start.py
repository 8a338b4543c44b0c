"""The start of a full training with the weights that a supernet has shared, in the place of fresh ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.networks.choices.choice_module import cut_weights
from lightning_modules.networks.supernet import take_over
from search.errors import CatchmarkError, nearest
from search.evaluation import Architecture
from search.recipes.build import description_of
from search.recipes.recipe import load_recipe
from search.recipes.trust import Trust, check_links
from search.runs.folders import CONFIG, JOURNAL
from search.runs.journal import Journal
from search.studies.base import Study
from search.studies.shared_weights import SharedWeightsTask
from search.studies.supernet_job import FOUND, checkpoint_of, read_outcome
from search.studies.supernet_study import SupernetStudy
from search.tasks.base import Task, all_parts
from search.tasks.trained import TrainedTask

_KEY = "--from-supernet"
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class SharedStart:
    """What a network begins with.

    Attributes:
        run: the folder of the supernet's run.
        method: whose supernet.
        trial: which repetition.
        epochs: that the supernet was trained for.
        digest: SHA-256 of names and values, which is what a training depends on.
        inherited: how many tensors there are.
        fresh: keys of the network that the supernet has nothing for: running statistics, and the scale and the shift of
            a normalisation that learns none there.
        state: the weights, by the keys of the stand-alone network; empty where only the others matter.
    """

    run: str
    method: str
    trial: int
    epochs: int
    digest: str
    inherited: int
    fresh: tuple[str, ...]
    state: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def described(self) -> dict[str, Any]:
        """All but the weights, for JSON."""
        return {key: value for key, value in vars(self).items() if key not in ("state", "fresh")} | {
            "fresh": list(self.fresh)
        }

    def in_words(self) -> str:
        """One line for the terminal."""
        running = sum(key.endswith(_RUNNING) for key in self.fresh)
        learned = len(self.fresh) - running
        fresh = [f"{running} running statistics"] * bool(running)
        fresh += [f"{learned} scales and shifts of normalisation"] * bool(learned)
        which = f"the supernet '{self.method}', trial {self.trial}, after {self.epochs} epochs"
        return f"starts from {self.inherited} tensors of {which}; fresh: {', '.join(fresh) or 'nothing'}"


@dataclass(frozen=True)
class FoundSupernet:
    """A trained supernet.

    Attributes:
        run: the folder of its run.
        study: of that run.
        method: of the study.
        trial: which repetition.
    """

    run: Path
    study: SupernetStudy
    method: str
    trial: int

    def best(self) -> tuple[Architecture, float]:
        """What its method found and has trained best alone, and the score with shared weights; the first of equals.

        Raises:
            CatchmarkError: it has found nothing yet.
        """
        with closing(Journal(self.run / JOURNAL, writable=False)) as journal:
            records = list(journal.records(self.method)) if self.method in journal.searches() else []
        found = [each for each in records if each.stage == FOUND and each.trial == self.trial]
        if not found:
            raise CatchmarkError(
                f"{_KEY}: the supernet '{self.method}' of {self.run}, trial {self.trial}, has found nothing yet; go on "
                "with the run, or name an --architecture"
            )

        def worth(alone: float) -> float:
            return -math.inf if math.isnan(alone) else alone

        best = max(found, key=lambda each: worth(each.evaluation.metrics.get("stand_alone", math.nan)))
        return self.study.space.check(best.architecture), best.evaluation.score

    def start(self, task: TrainedTask, architecture: Architecture, seed: int) -> SharedStart:
        """The weights of an architecture.

        Args:
            task: trains it.
            architecture: of the space of both.
            seed: of the training.

        Raises:
            CatchmarkError: the task's space or network is another one.
            RunError: the supernet is not there, or damaged.
        """
        ours, theirs = task.space, self.study.space
        if (ours.name, ours.decisions) != (theirs.name, theirs.decisions):
            raise CatchmarkError(f"{_KEY}: the supernet is one of the space '{theirs.name}', not '{ours.name}'")
        checkpoint = checkpoint_of(self.run, f"{self.method}-{self.trial}")
        module = self.study.training.load_module(checkpoint, self.method, self.trial)
        state = cut_weights(module.evaluated, architecture)
        try:
            fresh = take_over(task.build_network(architecture, seed), state)
        except ValueError as error:
            raise CatchmarkError(
                f"{_KEY}: the supernet shares weights with another network than the one trained; they differ in: "
                f"{error}; the supernet was built with {self.study.head(self.method)}, the task builds with "
                f"{task.build_arguments()}"
            ) from error
        epochs = read_outcome(checkpoint).epochs
        return SharedStart(
            str(self.run), self.method, self.trial, epochs, digest_of(state), len(state), tuple(fresh), state
        )


def find_supernet(
    named: str,
    run: Path,
    study: Study,
    task: Task | None,
    trust: Trust = Trust(),  # noqa: B008 - frozen
) -> FoundSupernet:
    """The supernet that a user means.

    Args:
        named: a supernet's folder (``RUN/supernets/METHOD-TRIAL``), or the name of a method of the run's own, perhaps
            followed by ``-TRIAL``; empty for the only method of the run, or for the supernet that its target asks.
        run: the folder that is trained from.
        study: of that run.
        task: of the run's target; None where it has none.
        trust: what another run's recipe may name.

    Raises:
        CatchmarkError: there is no such supernet.
    """
    if named and (folder := Path(named)).is_dir():
        if folder.parent.name != "supernets":
            raise CatchmarkError(f"{_KEY}: {named} is not a supernet's folder, RUN/supernets/METHOD-TRIAL")
        return _of_run(folder.parent.parent, trust, *_split(folder.name))
    if isinstance(study, SupernetStudy):
        if not named and len(study.methods) > 1:
            raise CatchmarkError(f"{_KEY}: the run has several supernets, name one: {', '.join(study.methods)}")
        method, trial = (named, 0) if named in study.methods else _split(named or next(iter(study.methods)))
        return _of_study(run, study, method, trial)
    if not named and task is not None:
        for part in all_parts(task):
            if isinstance(part, SharedWeightsTask):
                said = description_of(part)["init_args"]
                return _of_run(Path(said["run"]), trust, said["method"], said.get("trial") or 0)
    raise CatchmarkError(
        f"{_KEY}: {run} has no supernet{f' {named!r}' if named else ''}; name the folder of one: "
        "RUN/supernets/METHOD-TRIAL"
    )


def _of_run(run: Path, trust: Trust, method: str, trial: int) -> FoundSupernet:
    if not (run / CONFIG).is_file():
        raise CatchmarkError(f"{_KEY}: {run} is not a run folder: it has no {CONFIG}")
    check_links(run)
    study, _ = load_recipe(run / CONFIG, trust=trust)
    if not isinstance(study, SupernetStudy):
        raise CatchmarkError(f"{_KEY}: {run} did not train a supernet")
    return _of_study(run, study, method, trial)


def _of_study(run: Path, study: SupernetStudy, method: str, trial: int) -> FoundSupernet:
    if method not in study.methods:
        raise CatchmarkError(f"{_KEY}: there is no method '{method}'{nearest(method, study.methods, 'methods')}")
    return FoundSupernet(run, study, method, trial)


def _split(place: str) -> tuple[str, int]:
    """Method and trial of a supernet's folder."""
    method, _, trial = place.rpartition("-")
    return (method, int(trial)) if method and trial.isdecimal() else (place, 0)


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and values of weights."""
    known = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].cpu().contiguous()
        known.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        known.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return known.hexdigest()
