"""Training one network to predict a number."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lightning_modules.classification import MeanOverImages
from lightning_modules.learning_rate_schedule import LearningRateSchedule, ScheduleError


class RegressionModule(LightningModule):
    """Regression with AdamW and a cosine schedule.

    Logged at the end of an epoch, over all rows of all ranks: ``train_loss``, ``val_loss``; ``val_r2``, the share of
    the targets' variance that is explained, at most 1, and 0 for whoever always predicts their mean; ``val_mae`` and
    ``val_rmse``, the mean absolute error and the root of the mean squared one, in the target's own unit where the data
    say ``target_scale``, the unit that their targets are in.

    Args:
        network: from rows (or images) to ``[batch, 1]``.
        loss: ``mse``, or ``huber``, which large errors weigh on less.
        huber_delta: the error from which on it is linear, in the unit of the data's targets.
        learning_rate: where the cosine starts.
        weight_decay: of AdamW.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Literal["mse", "huber"] = "mse",
        huber_delta: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
    ):
        super().__init__()
        if loss not in ("mse", "huber"):
            raise ValueError(f"loss is '{loss}', allowed: mse, huber")
        if huber_delta <= 0 or learning_rate <= 0 or weight_decay < 0:
            raise ValueError(
                f"huber_delta is {huber_delta}, learning_rate {learning_rate}, weight_decay {weight_decay}: the first "
                "two must be above 0, the last 0 or more"
            )
        self.loss, self.huber_delta = loss, huber_delta
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {}

    def configure_models(self, network: nn.Module) -> None:
        """Put the network in place."""
        self.network = network

    def configure_losses(self) -> None:
        """Set the loss."""
        self.criterion = nn.MSELoss() if self.loss == "mse" else nn.HuberLoss(delta=self.huber_delta)

    def configure_metrics(self) -> None:
        """Set the means over an epoch."""
        self.train_loss, self.val_loss = MeanOverImages(), MeanOverImages()
        self.absolute, self.squared = MeanOverImages(), MeanOverImages()
        self.targets, self.squared_targets = MeanOverImages(), MeanOverImages()

    def configure_optimizers(self) -> Any:
        """AdamW, and a cosine from the learning rate to zero over all iterations of the run."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        iterations = self.trainer.estimated_stepping_batches
        if math.isinf(iterations):
            raise ScheduleError("the cosine schedule needs an end: set max_epochs or max_steps")
        factor = LearningRateSchedule("cosine").factor(self.learning_rate, iterations)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def forward(self, rows: Tensor) -> Tensor:
        """Predictions ``[batch]``, in the unit of the data's targets."""
        predicted = self.network(rows)
        if predicted.ndim != 2 or predicted.shape[1] != 1:
            raise ValueError(f"the network gives {list(predicted.shape)}, [batch, 1] is needed: one number a row")
        return predicted.squeeze(1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """The loss of one batch."""
        rows, targets = batch
        loss = self.criterion(self(rows), targets)
        self.train_loss.update(loss.detach() * len(targets), len(targets))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Loss, errors and moments of one batch."""
        rows, targets = batch
        predicted, count = self(rows), len(targets)
        self.val_loss.update(self.criterion(predicted, targets) * count, count)
        errors, targets = (predicted - targets).double(), targets.double()
        self.absolute.update(errors.abs().sum().float(), count)
        self.squared.update(errors.square().sum().float(), count)
        self.targets.update(targets.sum().float(), count)
        self.squared_targets.update(targets.square().sum().float(), count)

    def on_validation_epoch_end(self) -> None:
        """Log loss and errors over all rows."""
        self.log("val_loss", self.val_loss)
        squared, mean = self.squared.compute(), self.targets.compute()
        variance = self.squared_targets.compute() - mean.square()
        scale = float(getattr(getattr(self.trainer, "datamodule", None), "target_scale", 1.0))
        self.log("val_r2", 1 - squared / variance)
        self.log("val_mae", scale * self.absolute.compute())
        self.log("val_rmse", scale * squared.sqrt())
        for metric in (self.absolute, self.squared, self.targets, self.squared_targets):
            metric.reset()
