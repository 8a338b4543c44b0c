"""Training one architecture in full: with a progress bar, a checkpoint every epoch, and weights that are kept.

A training is a pure function of its `Choice`. It goes on from its last checkpoint, random states included, so a killed
training that is started again ends with the weights of one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from search.deploy.best_epoch import BestEpoch, best_in, weights_in
from search.deploy.choice import Choice
from search.errors import CatchmarkError, RunError, nearest
from search.listeners.progress import ProgressBar
from search.loop.search import Listener
from search.runs.json_files import write_json
from search.tasks.trained import TrainedTask
from search.training.fit import fit as fit_module
from search.training.plan import Diverged
from search.training.tensor_files import load_tensors
from search.training.watch import EARLIER_KEY, Watch, logged_by, validates

SILENT = Listener()
"""Nobody listens."""
METRICS = "metrics.json"
"""What was logged so far, beside the checkpoint."""
SHARED = "shared.pt"
"""The shared weights that a training begins with, beside its checkpoint."""


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        weights: state dict of the Lightning module, of the epoch that is kept.
        epoch: which one that is, from 1.
        history: for each epoch ``epoch``, from 1, ``seconds`` and what was logged.
        resolution: height and width of the images, or how many words a sequence has, where the data show it; else None.
    """

    weights: dict[str, Tensor]
    epoch: int
    history: list[dict[str, float]]
    resolution: list[int] | None


Fit = Callable[[Choice, Path, int, Listener, bool], None]
"""What `fit` is, and what several ranks do together."""


def train(
    choice: Choice, checkpoint: Path, log: Listener = SILENT, quiet: bool = False, together: Fit | None = None
) -> Trained:
    """Train to the end, from wherever the checkpoint stands.

    Args:
        choice: what to train.
        checkpoint: the file that is kept after every epoch; it stays behind.
        log: told of every epoch.
        quiet: no progress bar.
        together: in place of `fit`, where several ranks were started.

    Raises:
        CatchmarkError: the recipe is wrong: nothing logs its score, or the last epoch would not be validated.
        RunError: the training diverged.
    """
    task, every = choice.task, _validation_every(choice.task)
    if task.epochs % every:
        raise CatchmarkError(
            f"trainer.check_val_every_n_epoch is {every}, of {task.epochs} epochs: the last one would not be "
            f"validated; choose --epochs that {every} divides"
        )
    state = _read(checkpoint)
    done = 0 if state is None else len(_kept(state)["history"])
    if done < task.epochs:
        del state  # as large as the network: whoever trains reads it again
        (together or fit)(choice, checkpoint, done, log, quiet)
        state = _read(checkpoint)
    assert state is not None
    history, resolution = _kept(state)["history"], _kept(state)["resolution"]
    log.training_ended(_name(choice), 0, history)
    if choice.keep == "last":
        return Trained(state["state_dict"], len(history), history, resolution)
    return Trained(weights_in(state), best_in(state, len(history)), history, resolution)


def epochs_of(checkpoint: Path) -> int:
    """How many epochs a checkpoint has completed; 0 where there is none.

    Raises:
        CatchmarkError: it is damaged.
    """
    state = _read(checkpoint)
    return 0 if state is None else len(_kept(state)["history"])


def _validation_every(task: TrainedTask) -> int:
    return task.trainer.get("check_val_every_n_epoch") or 1


def _read(checkpoint: Path) -> dict[str, Any] | None:
    if not checkpoint.is_file():
        return None
    try:
        state = load_tensors(checkpoint, mmap=True)
        if len(_kept(state)["history"]) and isinstance(state["state_dict"], dict):
            return state
    except Exception as error:
        raise CatchmarkError(
            f"{checkpoint} is damaged ({type(error).__name__}); remove it to train from the start"
        ) from error
    raise CatchmarkError(f"{checkpoint} is not a checkpoint of 'catchmark train'; remove it to train from the start")


def _kept(state: Mapping[str, Any]) -> dict[str, Any]:
    states = state["callbacks"]
    return states[EARLIER_KEY] if EARLIER_KEY in states else states[Watch.state_key] | states[_Show.state_key]


def _name(choice: Choice) -> str:
    return choice.target or "training"


def fit(choice: Choice, checkpoint: Path, done: int, log: Listener = SILENT, quiet: bool = False) -> None:
    """Train to the end; what it gives lies in the checkpoint.

    Args:
        choice: what to train; shared weights that it begins with lie beside the checkpoint.
        checkpoint: the file that is replaced after every epoch.
        done: epochs that it has completed; 0 to begin.
        log: told of every epoch.
        quiet: no progress bar.

    Raises:
        CatchmarkError: the recipe is wrong: nothing logs its score.
        RunError: the training diverged.
    """
    task, name = choice.task, _name(choice)
    begins = choice.shared is not None and not done
    shared = load_tensors(checkpoint.with_name(SHARED)) if begins else None
    show = _Show(name, task.score, quiet)
    plan = task.plan(choice.seed)
    plan = replace(
        plan,
        preset={},
        keep=checkpoint,
        resume=checkpoint if done else None,
        callbacks=[*plan.callbacks, show, *([BestEpoch(task.score)] if choice.keep == "best" else [])],
        told=_Log(checkpoint.with_name(METRICS), name, log),
    )
    try:
        fit_module(partial(task.start, choice.architecture, choice.seed, shared=shared), task.data, plan)
    except Diverged as error:
        raise RunError(f"{error}; try a smaller learning rate") from error
    finally:
        show.close()


class _Log:
    """Writes what was logged beside the checkpoint, and tells it."""

    def __init__(self, path: Path, name: str, listener: Listener):
        self._path, self._name, self._listener = path, name, listener
        self._epochs: list[dict[str, float]] = []

    def __call__(self, logged: dict[str, float], new: bool) -> None:
        self._epochs.append(logged)
        if new:
            write_json(self._path, {"epochs": self._epochs})
        self._listener.trained(self._name, 1, logged, new)


class _Show(Checkpoint):
    """Draws the bar, notes how large the images are, and sees that the score is logged."""

    state_key = "Show"

    def __init__(self, name: str, score: str, quiet: bool):
        self.name, self.score, self.quiet = name, score, quiet
        self.resolution: list[int] | None = None
        self._words: dict[str, float] = {}
        self._bar: ProgressBar | None = None

    def state_dict(self) -> dict[str, Any]:
        """How large the images are."""
        return {"resolution": self.resolution}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind it."""
        self.resolution = state["resolution"]

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read one of an earlier version too."""
        self.resolution = _kept(checkpoint)["resolution"]

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the bar."""
        if not self.quiet and trainer.is_global_zero:
            assert trainer.max_epochs is not None
            batches = self._batches(trainer)
            self._bar = ProgressBar({self.name: trainer.max_epochs * batches}, unit="batches")
            if trainer.current_epoch:
                self._advance(trainer.current_epoch * batches, new=False)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Move the bar."""
        if math.isfinite(trainer.num_training_batches):
            self._advance(1)

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, *_: Any) -> None:
        """Note how large the images are."""
        if self.resolution is None:
            self.resolution = _resolution(batch)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuse a score that nobody logs, before more epochs are paid for."""
        logged = logged_by(trainer)
        if validates(trainer) and self.score not in logged:
            raise CatchmarkError(f"score '{self.score}' is not logged{nearest(self.score, logged, 'logged')}")
        self._words = {name: logged[name] for name in ("train_loss", self.score) if name in logged}
        if not math.isfinite(trainer.num_training_batches):
            self._advance(1)

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()

    def _advance(self, batches: int, new: bool = True) -> None:
        if self._bar is not None:
            self._bar.trained(self.name, batches, self._words, new)

    @staticmethod
    def _batches(trainer: Trainer) -> int:
        """Steps of the bar an epoch: batches, or one where nobody knows how many there are."""
        return int(trainer.num_training_batches) if math.isfinite(trainer.num_training_batches) else 1


def _resolution(batch: Any) -> list[int] | None:
    """Height and width of the first image of a batch; of words, how many a sequence has."""
    images = batch.get("inputs") if isinstance(batch, Mapping) else batch
    while isinstance(images, (list, tuple)) and images:
        images = images[0]
    if isinstance(images, Tensor) and images.dim() >= 3:
        return list(images.shape[-2:])
    if isinstance(images, Tensor) and images.dim() == 2 and not images.is_floating_point():
        return [images.shape[-1]]
    return None
