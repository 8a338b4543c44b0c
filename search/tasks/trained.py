"""The score of an architecture after training its network: one Lightning run a child.

The networks are small and many, so a run carries no checkpoint, no logger and no progress bar, and validates once,
after the last epoch.
"""

from __future__ import annotations

import gc
import inspect
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from search.errors import CatchmarkError, RunError, one_line
from search.randomness import derive_seed
from search.spaces.base import Architecture, SearchSpace
from search.tasks.base import Evaluation, Task
from search.training.isolation import isolated, quiet_lightning, seed_global_streams

if TYPE_CHECKING:  # jsonargparse resolves these names too, and only when a recipe names this task
    from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

_EXHAUSTED = "out of memory"
_OUT_OF_MEMORY = (_EXHAUSTED, "not enough memory", "can't allocate memory")

_OF_THE_MACHINE = ("accelerator", "devices", "precision", "strategy", "num_nodes")
"""Arguments of the Trainer that a machine may not be up to."""
_MAKES_READY = ("prepare_data", "setup", "reseed", "train_dataloader", "val_dataloader")
"""Methods of a data module that are called before there is a batch."""
_LOADER = os.path.join("torch", "utils", "data")


class _Diverged(Exception):
    """A loss is infinite or not a number."""


class _TimeLimit(Exception):
    """The child took too long."""


class TrainedTask(Task):
    """Train the network of an architecture and read its score off the validation data.

    A child that diverges, runs out of memory, crashes or takes too long is a failed evaluation. What no architecture
    has a part in (no such data, an accelerator that is not there, a warm-up longer than the training, a score that
    nothing logs) is raised: it would fail every child. Scores are a function of (architecture, seed): on one machine's
    CPU, with one number of threads, to the last bit; on a GPU where ``trainer`` also says ``deterministic: true``.

    One process trains one child at a time: Lightning's logging and torch's random state are shared by threads.

    Args:
        space: builds the networks.
        data: a Lightning data module that also says ``num_classes`` and ``in_channels``. Where it has ``reseed(seed)``,
            as `ArrayDataModule` has, it is told a seed before each child; otherwise it draws from torch's random state,
            which is seeded for the child.
        module: wraps a network into a Lightning module; None for `ClassificationModule` with its defaults.
        epochs: of training. 12 is the reduced schedule of NAS-Bench-201.
        build: arguments of ``space.build`` besides those two, for instance ``{"channels": 16, "cells": 5}``.
        score: the logged metric to maximise. One that is better when it is lower needs a module that logs its negative.
        score_name: the axis label of plots; None to derive it from ``score``.
        trainer: further arguments of Lightning's Trainer, for instance ``{"precision": "16-mixed"}``. Unless said
            otherwise a child trains on one device.
        time_limit_seconds: a child that is still training then has failed; None for no limit. Looked at before
            each batch.
        threads: of the CPU for a child; None for as many as torch uses. For networks that train in seconds 1 is as fast
            as more, and the number decides the last bits of a score, so a recipe that names it says the same anywhere.
        channels_last: lay images out pixel by pixel instead of channel by channel. Networks of 8 or more channels then
            train about a quarter faster on a CPU, narrower ones slower. It decides the last bits of a score.

    Raises:
        ValueError: an argument is out of range, or the Trainer has no such argument.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: LightningDataModule,
        module: Callable[[nn.Module], LightningModule] | None = None,
        epochs: int = 12,
        build: dict[str, Any] | None = None,
        score: str = "val_accuracy",
        score_name: str | None = None,
        trainer: dict[str, Any] | None = None,
        time_limit_seconds: float | None = None,
        threads: int | None = None,
        channels_last: bool = False,
    ):
        if epochs < 1:
            raise ValueError(f"epochs is {epochs}, at least 1 is needed")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}, at least 1 or null is needed")
        if time_limit_seconds is not None and not time_limit_seconds > 0:
            raise ValueError(f"time_limit_seconds is {time_limit_seconds}, more than 0 or null is allowed")
        if trainer:
            _check_trainer_arguments(trainer)
        self.space, self.data, self.module = space, data, module
        self.epochs, self.build, self.score = epochs, build or {}, score
        self.score_name = score_name or ("validation accuracy (%)" if score == "val_accuracy" else score)
        self.trainer, self.time_limit_seconds, self.threads = trainer or {}, time_limit_seconds, threads
        self.channels_last = channels_last
        self.build_arguments()  # so that data that are not there are noticed before a search has begun

    def build_arguments(self) -> dict[str, Any]:
        """The arguments of ``space.build_from``: what the data say of themselves, and the task's ``build``."""
        head: dict[str, Any] = {}
        for key in ("num_classes", "in_channels"):
            if key not in self.build:
                if not hasattr(self.data, key):
                    raise CatchmarkError(
                        f"{type(self.data).__name__} does not say '{key}'; give it to the task's 'build'"
                    )
                head[key] = getattr(self.data, key)
        return head | self.build

    def build_network(self, architecture: Architecture, seed: int) -> nn.Module:
        """The network that `evaluate` trains, with the weights that it starts from; random states stay as they are."""
        with isolated():
            return self._build(self.space.check(architecture), seed)

    def wrap(self, network: nn.Module) -> LightningModule:
        """The Lightning module that trains a network; parts that it adds draw from torch's random state."""
        if self.module is not None:
            return self.module(network)
        from lightning_modules.classification import ClassificationModule

        return ClassificationModule(network)

    def start(self, architecture: Architecture, seed: int) -> LightningModule:
        """A fresh network in its Lightning module, with random streams and data where its training begins.

        Both it and the training belong inside `search.training.isolation.isolated`.
        """
        module = self.wrap(self._build(architecture, seed))
        seed_global_streams(derive_seed(seed, "training"))
        reseed = getattr(self.data, "reseed", None)
        if callable(reseed):
            reseed(derive_seed(seed, "data"))
        return module

    def make_trainer(self, callback: Callback, **preset: Any) -> Trainer:
        """A Trainer of the task's epochs with nothing on it that a second's training could do without.

        Args:
            callback: comes behind the task's own.
            **preset: further arguments, where the task's ``trainer`` does not say otherwise.

        Raises:
            RunError: Lightning refuses them, or this machine can't do what they say.
        """
        arguments: dict[str, Any] = {
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        arguments |= preset | self.trainer
        callbacks = arguments.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        arguments["callbacks"] = [*callbacks, callback]
        return construct_trainer(self.trainer, max_epochs=self.epochs, **arguments)

    def open(self) -> None:
        """Refuse what the Trainer refuses, such as an accelerator that this machine does not have."""
        with isolated(), quiet_lightning():
            self.make_trainer(_make_watch(None), enable_checkpointing=False)

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """Train one child.

        Args:
            architecture: what to build.
            seed: decides initial weights, order of the data, augmentation and dropout.

        Returns:
            The score, in the unit in which the module logs it (`ClassificationModule`: %); every other logged metric,
            and ``parameters``, the number of those that are trained; wall-clock seconds.
        """
        architecture = self.space.check(architecture)
        start = time.monotonic()
        with isolated(), quiet_lightning():
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            watch = _make_watch(None if self.time_limit_seconds is None else start + self.time_limit_seconds)
            trainer = self.make_trainer(watch, enable_checkpointing=False, check_val_every_n_epoch=self.epochs)
            failure = ""
            try:
                metrics = self._train(architecture, seed, trainer)
            except (_Diverged, _TimeLimit) as error:
                failure = str(error)
            except Exception as error:
                if blame := _blame(error, self.data):
                    raise RunError(f"{blame}: {_reason(error)}") from error
                failure = _reason(error)
            except SystemExit as error:
                # Lightning turns Ctrl+C into SystemExit.
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise KeyboardInterrupt from error
                raise
            finally:
                self.data.trainer = None  # or the last child stays in memory
        seconds = time.monotonic() - start
        if failure:
            if failure.startswith(_EXHAUSTED):
                # Outside of the except block, where no traceback holds the failed network's tensors any more.
                gc.collect()
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()
            return Evaluation.failed(failure, seconds, watch.history)
        if self.score not in metrics:
            raise RunError(f"score '{self.score}' is not logged{_suggest(self.score, metrics)}")
        return Evaluation(metrics.pop(self.score), metrics, seconds, history=watch.history)

    def _build(self, architecture: Architecture, seed: int) -> nn.Module:
        """Leaves the global streams where the network's initial weights end."""
        seed_global_streams(derive_seed(seed, "network"))
        network = self.space.build_from(architecture, self.build_arguments())
        if self.channels_last:
            # The first convolution hands the layout on to every layer after it, whatever that of the images.
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def _train(self, architecture: Architecture, seed: int, trainer: Trainer) -> dict[str, float]:
        """Build, fit, validate; the logged metrics."""
        module = self.start(architecture, seed)
        trainer.fit(module, datamodule=self.data)
        _check_finite(trainer, f"after {self.epochs} epochs")
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return metrics | {"parameters": float(sum(parameter.numel() for parameter in module.parameters()))}


def construct_trainer(given: Mapping[str, Any], **arguments: Any) -> Trainer:
    """Lightning's Trainer.

    Args:
        given: those of its arguments that the recipe names.
        **arguments: all of them.

    Raises:
        RunError: Lightning refuses them, or this machine can't do what they say.
    """
    from pytorch_lightning import Trainer

    try:
        return Trainer(**arguments)
    except Exception as error:  # each accelerator and plugin has its own way to say it
        said = ", ".join(f"{key}: {given[key]}" for key in _OF_THE_MACHINE if key in given)
        raise RunError(f"trainer: {{{said}}} can't be used here: {one_line(error)}") from error


def _blame(error: Exception, data: LightningDataModule) -> str:
    """What is to blame for an exception in a training, where the architecture can't be; else empty.

    Data are made ready, and their files read, without a look at the network. Lightning says itself where its Trainer,
    a module or a callback is not set up as it must be. A schedule is checked against the length of the run.
    """
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from lightning_modules.learning_rate_schedule import ScheduleError

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # The name first: a frame that was asked for its variables keeps them, and with them the network's memory.
    if any(frame.f_code.co_name in _MAKES_READY and frame.f_locals.get("self") is data for frame in frames):
        return "data"
    if isinstance(error, OSError) and any(_LOADER in frame.f_code.co_filename for frame in frames):
        return "data"
    for kind in (ScheduleError, MisconfigurationException):
        # Of a rank that was forked or spawned only text is left.
        if isinstance(error, kind) or _reason(error).startswith(f"{kind.__module__}.{kind.__qualname__}: "):
            return "training"
    return ""


def _check_trainer_arguments(arguments: dict[str, Any]) -> None:
    """Refuse what the Trainer does not know, and what the task decides."""
    from pytorch_lightning import Trainer

    if "max_epochs" in arguments:
        raise ValueError("trainer: 'max_epochs' is the task's own 'epochs'; set that instead")
    known = [name for name in inspect.signature(Trainer).parameters if name != "max_epochs"]
    for key in arguments:
        if key not in known:
            raise ValueError(f"trainer: Lightning's Trainer has no argument '{key}'{_suggest(key, known)}")


def _suggest(word: str, allowed: Any) -> str:
    near = get_close_matches(word, list(allowed), n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; allowed: {', '.join(allowed)}"


def _reason(error: Exception) -> str:
    """One line about an exception."""
    text = str(error)
    if isinstance(error, torch.multiprocessing.ProcessRaisedException) or "Original Traceback (most" in text:
        # Of a rank that was forked or spawned, and of a worker that loads data, only the printed traceback is left; its
        # last line is the exception.
        last = text.strip().splitlines()[-1]
        for kind in (_Diverged, _TimeLimit):
            last = last.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")
        return last
    exhausted = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    if exhausted or (isinstance(error, RuntimeError) and any(words in text.lower() for words in _OUT_OF_MEMORY)):
        return f"{_EXHAUSTED}: {text or type(error).__name__}"
    return f"{type(error).__name__}: {text}"


def _make_watch(deadline: float | None) -> Any:
    """A callback that stops a child, at the next epoch if it has diverged, at the next batch if it is out of time.

    Args:
        deadline: by `time.monotonic`; None for none.

    Returns:
        Its ``history`` is what was logged, epoch by epoch. It stays empty where Lightning forks processes that train.
    """
    from pytorch_lightning import Callback

    class Watch(Callback):
        history: list[dict[str, float]]

        def __reduce__(self) -> Any:  # a process that is spawned is sent one, and can't import a class of a function
            return _make_watch, (deadline,)

        # A module may log an epoch's last values after every callback's on_train_epoch_end.
        def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
            if trainer.current_epoch > 0:
                self.note(trainer)
                _check_finite(trainer, f"after epoch {trainer.current_epoch}")

        def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
            self.note(trainer)

        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if deadline is not None:
                _check_time(deadline, trainer)

        def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if deadline is not None:
                _check_time(deadline, trainer)

        def note(self, trainer: Trainer) -> None:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            if (len(self.history) + 1) % (trainer.check_val_every_n_epoch or 1):  # those are of an earlier epoch
                values = {name: value for name, value in values.items() if not name.startswith("val_")}
            self.history.append({name: value for name, value in values.items() if math.isfinite(value)})

    watch = Watch()
    watch.history = []
    return watch


def _check_finite(trainer: Trainer, when: str) -> None:
    """One look at the device an epoch: a look a step would make the host wait for it."""
    for name, value in trainer.callback_metrics.items():
        if not math.isfinite(value):
            raise _Diverged(f"diverged: {name} is {float(value)} {when}")


def _check_time(deadline: float, trainer: Trainer) -> None:
    late = time.monotonic() > deadline
    if trainer.world_size > 1:  # all ranks must stop at one batch, or the others wait for ever
        late = trainer.strategy.reduce_boolean_decision(late, all=False)
    if late:
        raise _TimeLimit(f"time limit reached in epoch {trainer.current_epoch + 1}, batch {trainer.global_step + 1}")
