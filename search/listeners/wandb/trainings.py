"""One W&B run a long training: of a supernet, or of what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from search.listeners.wandb.connection import WandbConnection
from search.loop.search import Listener
from search.spaces.base import SearchSpace

Training = tuple[str, int]
"""A name, as of a supernet's method, and a trial."""


class TrainingRuns(Listener):
    """Every epoch of every training, wherever it runs; several may be under way at a time.

    Args:
        connection: to W&B.
        space: of what is trained.
        seed: of trial 0.
        config: what it is a training of, such as the resolved recipe.
        job_type: what kind of run of its group it is; None for the name of the training.
    """

    def __init__(
        self,
        connection: WandbConnection,
        space: SearchSpace,
        seed: int,
        config: dict[str, Any],
        job_type: str | None = None,
    ):
        self.connection, self.space, self.seed, self.config, self.job_type = connection, space, seed, config, job_type
        self._runs: dict[Training, Any] = {}
        self._epochs: dict[Training, int] = {}
        # What is logged whole already, or can't be logged any more.
        self._closed: set[Training] = set()

    def trained(self, name: str, epochs: int, values: Mapping[str, float], new: bool, trial: int = 0) -> None:
        """Log an epoch; of a training that has ended in an earlier attempt there is nothing to say."""
        training = name, trial
        if values and training not in self._closed and self.connection.mode != "disabled":
            with self._guarded(training):
                if self._is_open(training):
                    self._log(training, values)

    def training_ended(self, name: str, trial: int, history: Sequence[Mapping[str, float]]) -> None:
        """Log what another process has not said in time, and finish the W&B run."""
        training = name, trial
        for values in history[self._epochs.get(training, 0) :]:
            self.trained(name, 1, values, True, trial)
        if (run := self._runs.pop(training, None)) is not None:
            with self._guarded(training):
                self.connection.finish(run)
        self._closed.add(training)

    def close(self) -> None:
        """Finish the W&B runs of trainings that were cut short; they can be resumed."""
        for training, run in list(self._runs.items()):
            with self._guarded(training):
                run.finish(exit_code=1)
        self._runs.clear()

    def _guarded(self, training: Training) -> AbstractContextManager[None]:
        def abandon() -> None:
            self._runs.pop(training, None)
            self._closed.add(training)

        return self.connection.guarded("this training", abandon, again=training in self._runs)

    def _is_open(self, training: Training) -> bool:
        """Whether a training has a W&B run to log to, which is started if need be."""
        if training not in self._runs:
            name, trial = training
            identity = self.connection.identity(*training)
            if self.connection.is_complete(earlier := self.connection.earlier(identity)):
                self._closed.add(training)
                return False
            self._runs[training] = self.connection.start(
                identity,
                name=f"{name}/{trial}",
                job_type=self.job_type or name,
                tags=[self.space.name, name, f"seed {self.seed + trial}"],
                config={**self.config, "training": name, "trial": trial},
            )
            self.connection.replace(earlier)
        return True

    def _log(self, training: Training, values: Mapping[str, float]) -> None:
        run, epoch = self._runs[training], self._epochs.get(training, 0) + 1
        self._epochs[training] = epoch
        if epoch >= run.step:  # an online run that goes on has the others already
            run.log({"epoch": epoch, **values}, step=epoch)
