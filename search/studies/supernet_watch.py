"""What is done at the epochs of a supernet's training: landmarks are taken up, and the ranking is measured."""

from __future__ import annotations

import copy
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_modules.supernet import SupernetModule, evaluate_paths
from search.statistics.rank_correlation import sparse_kendall_tau
from search.studies.supernet_job import OUTCOME_KEY, Stretch

if TYPE_CHECKING:
    from search.studies.supernet_stretch import Tell
    from search.studies.supernet_training import SupernetTraining


class SupernetWatch(Callback):
    """Counts epochs and measures at their end.

    Args:
        training: what the supernet is trained with.
        stretch: which epochs.
        tell: told of every epoch, in this process alone.
    """

    state_key = OUTCOME_KEY

    def __init__(self, training: SupernetTraining, stretch: Stretch, tell: Tell):
        self.training, self.job, self.tell = training, stretch.job, tell
        self.outcome = copy.deepcopy(stretch.outcome)  # newer than the checkpoint's, where landmarks were added since
        self._process, self._began = os.getpid(), time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return asdict(self.outcome)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Take up the landmarks of the start, and those that earlier iterations added."""
        assert isinstance(module, SupernetModule)
        added = [(tuple(arch), worth) for arch, worth in self.outcome.added]
        module.regularizer = self.training.regularizer(self.job.method, [*self.job.landmarks, *added])

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure the ranking where it is time to."""
        assert isinstance(module, SupernetModule)
        outcome = self.outcome
        outcome.epochs = trainer.current_epoch + 1
        outcome.seconds["training"] += time.monotonic() - self._began
        values = module.epoch_values()
        if outcome.epochs in self.training.measured_epochs(self.job.method):
            values["s_kdt"] = self._measure(module, outcome.epochs)
        outcome.history.append(values)
        if os.getpid() == self._process:
            self.tell(1, values, True)

    def _measure(self, module: SupernetModule, epoch: int) -> float:
        """On every rank the same, step by step: normalisation asks them all."""
        began = time.monotonic()
        batches, calibration = self.training.evaluation_batches()
        scores = evaluate_paths(module, [arch for arch, _ in self.job.measured], batches, calibration)
        self.outcome.rounds.append((epoch, [(each.score, each.loss) for each in scores]))
        self.outcome.seconds["measuring"] += time.monotonic() - began
        worth = [each for _, each in self.job.measured]
        return sparse_kendall_tau(worth, [each.score for each in scores], self.training.threshold)
