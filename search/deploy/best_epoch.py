"""Which epoch of a training is kept: the best one by its score, or the last one."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from search.training.watch import logged_by, validates


class BestEpoch(Checkpoint):
    """Remembers the weights of the validated epoch with the highest score, the first of equals.

    They lie in the checkpoint of every epoch, so that both are of one training whenever it is killed; where the best
    epoch is the checkpoint's own, its weights stand there only once. Rank 0 decides, and it alone keeps them.

    Args:
        score: the logged metric.
    """

    state_key = "BestEpoch"

    def __init__(self, score: str):
        self.score = score
        self._epoch, self._value, self._now = 0, -math.inf, False
        self._weights: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Which epoch, from 1, its score, and its weights where the checkpoint has others."""
        return {"epoch": self._epoch, "value": self._value, "weights": None if self._now else self._weights}

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on behind it; of the epochs that an earlier version has trained no weights are left to compare."""
        state = checkpoint["callbacks"].get(self.state_key)
        if state is not None and state["epoch"]:
            self._epoch, self._value = state["epoch"], state["value"]
            self._weights = _copied(weights_in(checkpoint)) if trainer.is_global_zero else None

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Compare, behind everything that logs."""
        value = logged_by(trainer).get(self.score, -math.inf) if validates(trainer) else -math.inf
        self._now = trainer.strategy.broadcast(value > self._value)
        if self._now:
            self._epoch, self._value = trainer.current_epoch + 1, value
            weights = trainer.strategy.lightning_module_state_dict()
            self._weights = _copied(weights) if trainer.is_global_zero else None


def best_in(checkpoint: Mapping[str, Any], epochs: int) -> int:
    """The best epoch that a checkpoint knows, from 1.

    Args:
        checkpoint: of a training with a `BestEpoch`, or of one without, whose last epoch is all there is.
        epochs: that it has completed.
    """
    state = checkpoint["callbacks"].get(BestEpoch.state_key)
    return state["epoch"] if state is not None and state["epoch"] else epochs


def weights_in(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of that epoch."""
    state = checkpoint["callbacks"].get(BestEpoch.state_key)
    kept = None if state is None else state["weights"]
    return checkpoint["state_dict"] if kept is None else kept


def _copied(weights: Mapping[str, Any]) -> dict[str, Any]:
    """In memory of their own: the training goes on to change the others."""
    return {
        name: each.detach().to("cpu", copy=True) if isinstance(each, torch.Tensor) else copy.deepcopy(each)
        for name, each in weights.items()
    }
