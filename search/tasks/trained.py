"""The score of an architecture after training its network: one Lightning run a child.

The networks are small and many, so a run carries no checkpoint, no logger and no progress bar, and validates once,
after the last epoch. How it is trained is `search.training.fit`'s.
"""

from __future__ import annotations

import copy
import gc
import inspect
import math
import os
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.supernet import take_over
from search.errors import CatchmarkError, RunError, nearest
from search.evaluation import Architecture, Evaluation, Objective, Proposal, read_objectives
from search.randomness import derive_seed
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne
from search.tasks.image_sizes import check_image_size
from search.training.fit import Fitted, check_plan, epochs_of, fit, inherit
from search.training.isolation import isolated, seed_global_streams
from search.training.plan import Diverged, FitPlan, OutOfTime, StopRule, TrainingStage, first_epochs, shortened
from search.training.trainer_arguments import TINY_TRAINER

if TYPE_CHECKING:  # jsonargparse resolves these names too, and only when a recipe names this task
    from pytorch_lightning import Callback, LightningDataModule, LightningModule

_EXHAUSTED = "out of memory"
_OUT_OF_MEMORY = (_EXHAUSTED, "not enough memory", "can't allocate memory")

_MAKES_READY = ("prepare_data", "setup", "reseed", "train_dataloader", "val_dataloader")
"""Methods of a data module that are called before there is a batch."""
_LOADER = os.path.join("torch", "utils", "data")


class TrainedTask(OneByOne):
    """Train the network of an architecture and read its score off the validation data.

    A child that diverges, runs out of memory, crashes or takes too long is a failed evaluation. What no architecture
    has a part in (no such data, an accelerator that is not there, a warm-up longer than the training, a score that
    nothing logs) is raised: it would fail every child. Scores are a function of (architecture, seed): on one machine's
    CPU, with one number of threads, to the last bit; on a GPU where ``trainer`` also says ``deterministic: true``.

    One process trains one child at a time: Lightning's logging and torch's random state are shared by threads.

    A proposal whose parent is the architecture itself goes on with its training, where that took fewer epochs than are
    asked for now, and the task has no stages: only the epochs that are missing are trained, from the weights that it
    left, with a schedule of learning rates of their own (warm restarts, as in SGDR).

    Args:
        space: builds the networks.
        data: a Lightning data module that also says ``num_classes`` and ``in_channels``. Where it says ``image_size``,
            height and width, images that the space's networks can't take are refused at once. Where it has
            ``reseed(seed)``, as `ArrayDataModule` has, it is told a seed before each child; otherwise it draws from
            torch's random state, which is seeded for the child.
        module: wraps a network into a Lightning module; None for `ClassificationModule` with its defaults.
        epochs: of training. 12 is the reduced schedule of NAS-Bench-201. Left out where there are ``stages``.
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
        stages: of the training, in order, where it has several; each is validated at its end.
        stop_stage: the first stage, from 0, that a search may stop a child in, whose score is too low to go on; 0 if
            None.
        objectives: what is wanted of the score, by the name of its metric, and of further metrics: ``max`` or ``min``,
            each perhaps with a hard limit, for instance ``{parameters: {direction: min, limit: 5000}}``.
        keep_weights: keep every child's trained weights in the run's folder, for children that inherit them.
        callbacks: of Lightning, such as `HMSCallback`; every child gets copies of its own. What they log is a metric.

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
        stages: list[TrainingStage] | None = None,
        stop_stage: int | None = None,
        objectives: dict[str, Any] | None = None,
        keep_weights: bool | None = None,
        callbacks: list[Callback] | None = None,
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
        self.build, self.score = build or {}, score
        self.score_name = score_name or ("validation accuracy (%)" if score == "val_accuracy" else score)
        self.trainer, self.time_limit_seconds, self.threads = trainer or {}, time_limit_seconds, threads
        self.channels_last, self.stop_stage = channels_last, stop_stage or 0
        self.callbacks = callbacks or []
        self._stages = [TrainingStage(epochs)] if stages is None else list(stages)
        self.epochs = sum(stage.epochs for stage in self._stages)
        if not 0 <= self.stop_stage < len(self._stages):
            raise ValueError(f"stop_stage is {stop_stage}, the stages are numbered from 0 to {len(self._stages) - 1}")
        self.score_metric, self.objectives = score, read_objectives(objectives or {})
        self.keeps_artifact = bool(keep_weights)
        self.honours = frozenset({"epochs", "stop_below"} | ({"parent"} if keep_weights else set()))
        # So that data that are not there, or images that do not fit, are noticed before a search has begun.
        arguments, size = self.build_arguments(), getattr(data, "image_size", None)
        if size is not None:
            check_image_size(space, size, arguments)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Two batches of handwritten digits."""
        return {"data": "DigitsDataModule", "epochs": 1, "threads": 1, "trainer": dict(TINY_TRAINER)}

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

    def start(
        self,
        architecture: Architecture,
        seed: int,
        parent: Path | None = None,
        shared: Mapping[str, Tensor] | None = None,
    ) -> LightningModule:
        """A network in its Lightning module, fresh or with inherited weights; belongs inside of `isolated`.

        Args:
            architecture: of the space.
            seed: of the fresh weights, which are drawn in any case.
            parent: the weights of another network, taken over wherever they fit.
            shared: those of this architecture in a supernet, by the keys of its stand-alone network; all must fit.

        Raises:
            ValueError: shared weights do not fit.
        """
        network = self._build(architecture, seed)
        if shared is not None:
            take_over(network, shared)
        module = self.wrap(network)
        if parent is not None:
            inherit(module, parent)
        return module

    def stages(self) -> list[TrainingStage]:
        """The stages of a training, in order."""
        return self._stages

    def plan(self, seed: int, epochs: int | None = None, stop: StopRule = StopRule()) -> FitPlan:  # noqa: B008 - frozen
        """How a network is trained.

        Args:
            seed: as for `evaluate`.
            epochs: in place of the task's; None for those.
            stop: when to end early. Where that depends on a score, every epoch is validated, else the last one of
                every stage.
        """
        stages = shortened(self.stages(), epochs)
        ends = [first + stage.epochs for first, stage in zip(first_epochs(stages), stages, strict=True)]
        every = math.gcd(*ends) if stop.below is None else 1
        preset = {"check_val_every_n_epoch": every}
        callbacks = copy.deepcopy(self.callbacks)
        return FitPlan(stages, seed, self.trainer, preset, threads=self.threads, stop=stop, callbacks=callbacks)

    def open(self) -> None:
        """Refuse what the Trainer refuses, such as an accelerator that this machine does not have."""
        check_plan(self.plan(0))

    def evaluate_one(self, proposal: Proposal) -> Evaluation:
        """Train one child.

        Args:
            proposal: the architecture to build; a seed that decides initial weights, order of the data, augmentation
                and dropout; as fidelity perhaps the ``epochs`` of training; and perhaps a score to stop below.

        Returns:
            The score, in the unit in which the module logs it (`ClassificationModule`: %); every other logged metric,
            and ``parameters``, the number of those that are trained; wall-clock seconds.
        """
        epochs = proposal.fidelity.get("epochs")
        whole = None if epochs is None else _epochs(epochs)
        parent, leave = (None if path is None else Path(path) for path in (proposal.inherit, proposal.leave))
        wanted, done = self.epochs if whole is None else whole, 0
        if parent is not None and proposal.parent == proposal.architecture and len(self.stages()) == 1:
            done = epochs_of(parent)
        if not done < wanted:
            done = 0  # nothing is missing: from those weights on anew
        left = wanted - done if done else whole
        answer = self.train(proposal.architecture, proposal.seed, left, proposal.stop_below, parent, leave, done)
        return replace(answer, artifact=proposal.leave) if answer.status == "ok" else answer

    def train(
        self,
        architecture: Architecture,
        seed: int,
        epochs: int | None = None,
        stop_below: float | None = None,
        parent: Path | None = None,
        leave: Path | None = None,
        before: int = 0,
    ) -> Evaluation:
        """Train one child, perhaps not to the end.

        Args:
            architecture: as for `evaluate_one`.
            seed: as for `evaluate_one`.
            epochs: of the training, in place of the task's: stages from the first one on, as far as they go. A schedule
                of learning rates is that of so many. None for the task's.
            stop_below: the training ends, well, with the first epoch from `stop_stage` on whose validated score is
                below this. None for never.
            parent: the trained weights of another network, to begin with those of the same names and shapes.
            leave: where to leave the trained weights, as a ``parent`` of others.
            before: epochs of this very training that the parent's weights have behind them.

        Returns:
            As `evaluate_one`; with ``epochs``, how many it took, among the metrics where it may be fewer.
        """
        architecture = self.space.check(architecture)
        start, failure = time.monotonic(), ""
        deadline = None if self.time_limit_seconds is None else start + self.time_limit_seconds
        stop = StopRule(deadline=deadline, score=self.score, below=stop_below, stage=self.stop_stage)
        watched: list[dict[str, float]] = []
        metrics: dict[str, float] = {}
        try:
            plan = replace(self.plan(seed, epochs, stop), leave=leave, before=before)
            fitted = self.fitted(architecture, plan, parent, watched)
            metrics = fitted.metrics | {"parameters": float(sum(each.numel() for each in fitted.module.parameters()))}
            if epochs is not None or stop_below is not None:
                metrics["epochs"] = float(fitted.epochs)
            del fitted
        except (Diverged, OutOfTime) as error:
            failure = str(error)
        except Exception as error:
            if blame := _blame(error, self.data):
                raise RunError(f"{blame}: {_reason(error)}") from error
            if isinstance(error, CatchmarkError):
                raise
            failure = _reason(error)
        seconds = time.monotonic() - start
        history = [{k: v for k, v in epoch.items() if k not in ("epoch", "seconds")} for epoch in watched]
        if failure:
            if failure.startswith(_EXHAUSTED):
                # Outside of the except block, where no traceback holds the failed network's tensors any more.
                gc.collect()
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()
            return Evaluation.failed(failure, seconds, history)
        if self.score not in metrics:
            raise RunError(f"score '{self.score}' is not logged{nearest(self.score, metrics)}")
        check_measured(self.objectives, metrics)
        return Evaluation(metrics.pop(self.score), metrics, seconds, history=history)

    def fitted(
        self, architecture: Architecture, plan: FitPlan, parent: Path | None, watched: list[dict[str, float]]
    ) -> Fitted:
        """The training of a child itself; a task that trains in another way overrides it.

        Args:
            architecture: of the space.
            plan: how to train.
            parent: as for `train`.
            watched: filled, epoch by epoch, with what was logged.
        """
        return fit(partial(self.start, architecture, plan.seed, parent), self.data, plan, watched)

    def _build(self, architecture: Architecture, seed: int) -> nn.Module:
        """Leaves the global streams where the network's initial weights end."""
        seed_global_streams(derive_seed(seed, "network"))
        network = self.space.build_from(architecture, self.build_arguments())
        if self.channels_last:
            # The first convolution hands the layout on to every layer after it, whatever that of the images.
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network


def check_measured(objectives: Mapping[str, Objective], names: Collection[str]) -> None:
    """Refuse objectives that nothing measures.

    Raises:
        RunError: an objective is not among the names of what an evaluation gives.
    """
    for name in objectives:
        if name not in names:
            raise RunError(f"objectives: '{name}' is not logged{nearest(name, names)}")


def _epochs(asked: float) -> int:
    """As many epochs as a proposal asks for."""
    if asked < 1 or asked != int(asked):
        raise RunError(f"the agent asks for {asked:g} epochs, a whole number of at least 1 is needed")
    return int(asked)


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
            raise ValueError(f"trainer: Lightning's Trainer has no argument '{key}'{nearest(key, known)}")


def _reason(error: Exception) -> str:
    """One line about an exception."""
    text = str(error)
    if isinstance(error, torch.multiprocessing.ProcessRaisedException) or "Original Traceback (most" in text:
        # Of a rank that was forked or spawned, and of a worker that loads data, only the printed traceback is left; its
        # last line is the exception.
        last = text.strip().splitlines()[-1]
        for kind in (Diverged, OutOfTime):
            last = last.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")
        return last
    exhausted = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    if exhausted or (isinstance(error, RuntimeError) and any(words in text.lower() for words in _OUT_OF_MEMORY)):
        return f"{_EXHAUSTED}: {text or type(error).__name__}"
    return f"{type(error).__name__}: {text}"
