"""What is done to a training at its epochs and batches: stages change, it is watched, stopped and kept.

These are callbacks of Lightning's Trainer. Whoever needs them imports this module when there is something to train: to
import Lightning takes seconds.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from lightning_modules.networks.batch_statistics import several_ranks
from search.errors import RunError, one_line
from search.training.checkpoints import WholeCheckpoints
from search.training.isolation import isolated
from search.training.plan import Diverged, FitPlan, OutOfTime, StopRule, TrainingStage, first_epochs
from search.training.trainer_arguments import arguments_here, listed

_OF_THE_MACHINE = ("accelerator", "devices", "precision", "strategy", "num_nodes")
"""Arguments of the Trainer that a machine may not be up to."""
EARLIER_KEY = "_Keeper"
"""Where checkpoints of earlier versions keep what their one callback had to say."""
_USUAL = {
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
"""Nothing that a training of a second could do without."""


def make_trainer(plan: FitPlan, history: list[dict[str, float]] | None = None) -> Trainer:
    """The Trainer of a plan.

    Args:
        plan: how to train.
        history: filled as `Watch.history`.

    Raises:
        CatchmarkError: its arguments are for other processes than there are.
        RunError: Lightning refuses them, or this machine can't do what they say.
    """
    told = arguments_here(plan.trainer, any_branch=plan.any_branch)
    arguments = _USUAL | dict(plan.preset) | told
    arguments.pop("enable_checkpointing", None)  # what keeps and watches is a checkpoint's callback to Lightning
    ours: list[Callback] = [*plan.callbacks, Stages(plan.stages), Watch(plan, history)]
    if plan.keep is not None:
        arguments["plugins"] = [*listed(arguments.get("plugins")), WholeCheckpoints()]
    arguments["callbacks"] = [*listed(arguments.get("callbacks")), *ours]
    try:
        return Trainer(max_epochs=plan.epochs, **arguments)
    except Exception as error:  # each accelerator and plugin has its own way to say it
        said = ", ".join(f"{key}: {plan.trainer[key]}" for key in _OF_THE_MACHINE if key in plan.trainer)
        raise RunError(f"trainer: {{{said}}} can't be used here: {one_line(error)}") from error


class Stages(Callback):
    """Makes the changes that stages begin with.

    Args:
        stages: of the training.
    """

    def __init__(self, stages: Sequence[TrainingStage]):
        self._stages, self._begun = stages, 0

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """All that are due: after an interruption, of several stages."""
        for stage, first in list(zip(self._stages, first_epochs(self._stages), strict=True))[self._begun :]:
            if first > trainer.current_epoch:
                break
            self._begun += 1
            if stage.change is not None:
                stage.change(module)


class Watch(Checkpoint):
    """Notes what was logged, epoch by epoch, keeps a checkpoint, and ends the training, as its plan says.

    Lightning asks checkpoints' callbacks last: a module may log an epoch's last values after all others. A checkpoint
    has the random states of every rank: a training that goes on ends with the weights of one that was never stopped.

    Args:
        plan: of the training.
        history: filled with each epoch's number, from 1, its ``seconds`` and what was logged, as far as it is finite;
            it stays empty where Lightning starts the processes that train.
    """

    state_key = "Watch"

    def __init__(self, plan: FitPlan, history: list[dict[str, float]] | None = None):
        self.stop, self.keep, self.told = plan.stop, plan.keep, plan.told
        self.history = [] if history is None else history
        self._looks_from = sum(stage.epochs for stage in plan.stages[: plan.stop.stage])
        self._random: list[dict[str, Any]] = []
        self._began = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What was logged, and the random states of every rank."""
        return {"history": self.history, "random": _random_states_of_ranks()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind it."""
        self.history[:], self._random = state["history"], listed(state["random"])

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read one of an earlier version too."""
        if "random" in (earlier := checkpoint.get("callbacks", {}).get(EARLIER_KEY, {})):
            self.load_state_dict(earlier)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Tell again of the epochs before an interruption."""
        for logged in self.history:
            self._tell(trainer, logged, new=False)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock; the first time after an interruption, begin the epoch as it would have begun without it."""
        self._began = time.monotonic()
        if self._random:
            # With another number of ranks nothing goes on as it would have gone on.
            _set_random_states(self._random[trainer.global_rank % len(self._random)])
            self._random = []
            # Lightning makes a resumed training's first iterator before it tells the data which epoch it is.
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Look at the clock."""
        self._check_time(trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Look at the clock."""
        self._check_time(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Note what was logged; end what has diverged, keep the rest, and end what is not worth going on with."""
        epoch, validated = trainer.current_epoch + 1, validates(trainer)
        logged = logged_by(trainer)
        if not validated:  # what stands there is of an earlier epoch
            logged = {name: value for name, value in logged.items() if not name.startswith("val_")}
        finite = {name: value for name, value in logged.items() if math.isfinite(value)}
        self.history.append({"epoch": epoch, "seconds": time.monotonic() - self._began, **finite})
        check_finite(self.stop, logged, epoch)
        if self.keep is not None:
            trainer.save_checkpoint(self.keep)  # in one stroke
        self._tell(trainer, self.history[-1], new=True)
        if self.stop.below is not None and validated and epoch > self._looks_from:
            if _on_any_rank(trainer, logged.get(self.stop.score, math.inf) < self.stop.below):
                trainer.should_stop = True

    def _tell(self, trainer: Trainer, logged: dict[str, float], new: bool) -> None:
        if self.told is not None and trainer.is_global_zero:
            with isolated():  # whoever listens may draw random numbers, and the training goes on as if nobody did
                self.told(logged, new)

    def _check_time(self, trainer: Trainer) -> None:
        deadline = self.stop.deadline
        if deadline is not None and _on_any_rank(trainer, time.monotonic() > deadline):
            at = f"epoch {trainer.current_epoch + 1}, batch {trainer.global_step + 1}"
            raise OutOfTime(f"time limit reached in {at}")


def validates(trainer: Trainer) -> bool:
    """Whether the epoch that the Trainer is at ends with a validation."""
    return (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0


def logged_by(trainer: Trainer) -> dict[str, float]:
    """What was logged last, by name. One look at the device an epoch: a look a step would make the host wait for it."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def check_finite(stop: StopRule, logged: Mapping[str, float], epoch: int) -> None:
    """Refuse to go on with what has diverged.

    Raises:
        Diverged: it has, and the rule says that it then ends.
    """
    for name, value in logged.items() if stop.diverged else ():
        if not math.isfinite(value):
            raise Diverged(f"diverged: {name} is {value} after epoch {epoch}")


def _on_any_rank(trainer: Trainer, here: bool) -> bool:
    """Whether something holds on any rank: all must stop at one batch, or the others wait for ever."""
    return trainer.strategy.reduce_boolean_decision(here, all=False) if trainer.world_size > 1 else here


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
