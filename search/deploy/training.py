"""Training one architecture in full: with a progress bar, a checkpoint every epoch, and weights that are kept.

A training is a pure function of its `Choice`. It goes on from its last checkpoint, random states included, so a killed
training that is started again ends with the weights of one that was never stopped.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from lightning_modules.networks.batch_statistics import several_ranks
from search.deploy.choice import Choice
from search.errors import CatchmarkError, RunError
from search.listeners.progress import ProgressBar
from search.loop.search import Listener
from search.recipes.words import nearest
from search.runs.json_files import write_json
from search.tasks.trained import TrainedTask
from search.training.checkpoints import WholeCheckpoints
from search.training.isolation import isolated, quiet_lightning
from search.training.tensor_files import load_tensors
from search.training.trainer_arguments import listed

SILENT = Listener()
"""Nobody listens."""
METRICS = "metrics.json"
"""What was logged so far, beside the checkpoint."""


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        weights: state dict of the Lightning module.
        history: for each epoch ``epoch``, from 1, ``seconds`` and what was logged.
        resolution: height and width of the images, where the data show it; else None.
    """

    weights: dict[str, Tensor]
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
    log.training_ended(_name(choice), 0, _kept(state)["history"])
    return Trained(state["state_dict"], _kept(state)["history"], _kept(state)["resolution"])


def epochs_of(checkpoint: Path) -> int:
    """How many epochs a checkpoint is behind; 0 where there is none.

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
    return state["callbacks"][_Keeper.__qualname__]


def _name(choice: Choice) -> str:
    return choice.target or "training"


def fit(choice: Choice, checkpoint: Path, done: int, log: Listener = SILENT, quiet: bool = False) -> None:
    """Train to the end; what it gives lies in the checkpoint.

    Args:
        choice: what to train.
        checkpoint: the file that is replaced after every epoch.
        done: epochs that the checkpoint is behind; 0 to begin.
        log: told of every epoch.
        quiet: no progress bar.

    Raises:
        CatchmarkError: the recipe is wrong: nothing logs its score.
        RunError: the training diverged.
    """
    task = copy.copy(choice.task)
    # What a Trainer does for searches alone.
    task.trainer = {key: value for key, value in task.trainer.items() if key != "enable_checkpointing"}
    task.trainer["plugins"] = [*listed(task.trainer.get("plugins")), WholeCheckpoints()]
    keeper = _Keeper(checkpoint, task.score, _validation_every(task), _name(choice), log, quiet)
    with isolated(), quiet_lightning():
        if task.threads is not None:
            torch.set_num_threads(task.threads)
        module = task.start(choice.architecture, choice.seed)
        trainer = task.make_trainer(keeper)
        try:
            trainer.fit(module, datamodule=task.data, ckpt_path=checkpoint if done else None, weights_only=True)
        except SystemExit as error:  # Lightning turns Ctrl+C, and a scheduler's word to end, into SystemExit
            raise KeyboardInterrupt from error
        finally:
            task.data.trainer = None
            keeper.close()


class _Keeper(Checkpoint):
    """Keeps the state behind every epoch, with what was logged so far and every random state; draws the bar."""

    def __init__(self, checkpoint: Path, score: str, every: int, name: str, listener: Listener, quiet: bool):
        self.checkpoint, self.score, self.every = checkpoint, score, every
        self.name, self.listener, self.quiet = name, listener, quiet
        self.history: list[dict[str, float]] = []
        self.resolution: list[int] | None = None
        self._random: list[dict[str, Any]] = []
        self._bar: ProgressBar | None = None
        self._began = time.monotonic()

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps this."""
        return type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        """What was logged, and the random states of every rank."""
        return {"history": self.history, "resolution": self.resolution, "random": _random_states_of_ranks()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind it."""
        self.history, self.resolution, self._random = state["history"], state["resolution"], listed(state["random"])

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the bar."""
        for logged in self.history:
            self._tell(logged, new=False)
        if not self.quiet and trainer.is_global_zero:
            assert trainer.max_epochs is not None
            batches = self._batches(trainer)
            self._bar = ProgressBar({self.name: trainer.max_epochs * batches}, unit="batches")
            if self.history:
                self._advance(len(self.history) * batches, new=False)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock; the first time after an interruption, begin the epoch as it would have begun without it."""
        self._began = time.monotonic()
        if self._random:
            # With another number of ranks nothing goes on as it would have gone on.
            _set_random_states(self._random[trainer.global_rank % len(self._random)])
            self._random = []
            # Lightning makes a resumed training's first iterator before it tells the data which epoch it is.
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Move the bar."""
        if math.isfinite(trainer.num_training_batches):
            self._advance(1)

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, *_: Any) -> None:
        """Note how large the images are."""
        if self.resolution is None:
            self.resolution = _resolution(batch)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Replace the checkpoint in one stroke, unless the training has diverged."""
        epoch = trainer.current_epoch + 1
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if epoch % self.every:  # what stands there is of an earlier epoch
            logged = {name: value for name, value in logged.items() if not name.startswith("val_")}
        elif self.score not in logged:
            raise CatchmarkError(f"score '{self.score}' is not logged{nearest(self.score, logged, 'logged')}")
        for name, value in logged.items():
            if not math.isfinite(value):
                raise RunError(f"diverged: {name} is {value} after epoch {epoch}; try a smaller learning rate")
        self.history.append({"epoch": epoch, "seconds": time.monotonic() - self._began, **logged})
        if not math.isfinite(trainer.num_training_batches):
            self._advance(1)
        trainer.save_checkpoint(self.checkpoint)
        if trainer.is_global_zero:
            write_json(self.checkpoint.with_name(METRICS), {"epochs": self.history})
        self._tell(self.history[-1], new=True)

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()

    def _tell(self, logged: dict[str, float], new: bool) -> None:
        with isolated():  # whoever listens may draw random numbers, and the training goes on as if nobody did
            self.listener.trained(self.name, 1, logged, new)

    def _advance(self, batches: int, new: bool = True) -> None:
        if self._bar is not None:
            last = self.history[-1] if self.history else {}
            words = {name: last[name] for name in ("train_loss", self.score) if name in last}
            self._bar.trained(self.name, batches, words, new)

    @staticmethod
    def _batches(trainer: Trainer) -> int:
        """Steps of the bar an epoch: batches, or one where nobody knows how many there are."""
        return int(trainer.num_training_batches) if math.isfinite(trainer.num_training_batches) else 1


def _resolution(batch: Any) -> list[int] | None:
    """Height and width of the first image of a batch."""
    images = batch.get("inputs") if isinstance(batch, Mapping) else batch
    while isinstance(images, (list, tuple)) and images:
        images = images[0]
    if isinstance(images, Tensor) and images.dim() >= 3:
        return list(images.shape[-2:])
    return None


def _random_states_of_ranks() -> list[dict[str, Any]]:
    states = _random_states()
    if not several_ranks():
        return [states]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, states)
    return gathered


def _random_states() -> dict[str, Any]:
    """Every global random state, in values that can be loaded without running code."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - third-party code draws from it
    version, internal, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [kind, [int(key) for key in keys], int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), next_gauss],
    }


def _set_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, internal, next_gauss = states["python"]
    random.setstate((version, tuple(internal), next_gauss))
