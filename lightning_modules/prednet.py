"""Training one network to predict the next frame: the PredNet recipe."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lightning_modules.classification import MeanOverImages
from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.networks.prednet import PredNet


class PredNetModule(LightningModule):
    """Next-frame prediction with Adam.

    The loss is the mean error of the lowest layer, which is half the mean absolute difference to the frame, averaged
    over all frames of a sequence but the first, which nothing foretells (PredNet's ``L_0``).

    The four hooks of every task class: `configure_models`, `configure_losses`, `configure_metrics` and Lightning's
    `configure_optimizers`.

    Logged at the end of an epoch, over all sequences of all ranks: ``train_loss``, ``val_loss``; ``val_mse``, the mean
    squared error of the predicted frames but the first, pixels in 0 to 1; ``val_previous_mse``, that of predicting the
    frame before again; and ``val_skill``, ``100 (1 - val_mse / val_previous_mse)`` in %: above 0 where the network is
    better than that, for searches that maximise.

    Args:
        network: a `PredNet`; or any other from frames ``[batch, time, channels, height, width]`` to what it predicts of
            each, trained on the absolute difference.
        learning_rate: of Adam; None for the network's own ``learning_rate``, where its search space decides it, or else
            0.001, PredNet's for KITTI (recalled).
        drop_after: share of the epochs after which the learning rate is a tenth; 1 for never. PredNet's is one half
            (recalled).

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, network: nn.Module, learning_rate: float | None = None, drop_after: float = 0.5):
        super().__init__()
        if learning_rate is not None and not learning_rate > 0:
            raise ValueError(f"learning_rate is {learning_rate}, more than 0 is needed")
        if not 0 < drop_after <= 1:
            raise ValueError(f"drop_after is {drop_after}, allowed: above 0 up to 1")
        own = getattr(network, "learning_rate", None)
        self.learning_rate = learning_rate if learning_rate is not None else 1e-3 if own is None else float(own)
        self.drop_after = drop_after
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self, network: nn.Module) -> None:
        """Put the network in place."""
        self.network = network

    def configure_losses(self) -> None:
        """Nothing to set: the loss is the network's own error."""

    def configure_metrics(self) -> None:
        """Set the means over an epoch."""
        self.train_loss, self.val_loss = MeanOverImages(), MeanOverImages()
        self.val_mse, self.val_previous_mse = MeanOverImages(), MeanOverImages()

    def configure_optimizers(self) -> Any:
        """Adam, and a learning rate that falls to a tenth, counted in epochs."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        epochs = self.trainer.max_epochs
        every = math.ceil(self.drop_after * epochs) if self.drop_after < 1 and epochs and epochs > 0 else 0
        steps = LearningRateSchedule("steps", every=every) if every else LearningRateSchedule("constant")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, steps.factor(self.learning_rate, math.inf))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def forward(self, frames: Tensor) -> Tensor:
        """What is predicted of each frame."""
        return self.network(frames)

    def errors(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each sequence, and the prediction of each frame."""
        if isinstance(self.network, PredNet):
            watched = list(self.network.watch(frames))
            predictions = torch.stack([prediction for prediction, _ in watched], dim=1)
            lowest = torch.stack([state.errors[0] for _, state in watched[1:]], dim=1)
            return lowest.flatten(1).mean(1), predictions
        predictions = self.network(frames)
        return (predictions - frames)[:, 1:].abs().flatten(1).mean(1) / 2, predictions

    def training_step(self, frames: Tensor, batch_index: int) -> Tensor:
        """The loss of one batch."""
        losses, _ = self.errors(frames)
        self.train_loss.update(losses.detach().sum(), len(losses))
        return losses.mean()

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    def validation_step(self, frames: Tensor, batch_index: int) -> None:
        """Loss and errors of one batch."""
        losses, predictions = self.errors(frames)
        self.val_loss.update(losses.sum(), len(losses))
        for metric, guess in ((self.val_mse, predictions[:, 1:]), (self.val_previous_mse, frames[:, :-1])):
            metric.update((guess - frames[:, 1:]).square().flatten(1).mean(1).sum(), len(frames))

    def on_validation_epoch_end(self) -> None:
        """Log loss and errors over all sequences, and the skill."""
        mse, previous = self.val_mse.compute(), self.val_previous_mse.compute()
        self.log("val_loss", self.val_loss)
        self.log("val_mse", self.val_mse)
        self.log("val_previous_mse", self.val_previous_mse)
        # Frames that stand still leave nothing to be better at.
        self.log("val_skill", 100 * (1 - mse / previous.clamp(min=1e-12)))
