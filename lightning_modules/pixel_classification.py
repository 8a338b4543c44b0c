"""Training one network that labels every pixel by itself, with no model of a library around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_modules.classification import MeanOverImages
from lightning_modules.learning_rate_schedule import LearningRateSchedule, ScheduleError
from lightning_modules.networks.drop_path import set_drop_path
from lightning_modules.objectives.segmentation import PixelCounts, SegmentationObjective, mean_iou


class PixelMeans(Metric):
    """Intersection over union, accuracy and loss over all pixels of an epoch and of all ranks."""

    full_state_update = False
    confusion: Tensor
    loss: Tensor
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Of no class yet: how many there are, the first batch says.
        self.add_state("confusion", torch.zeros(1, 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("loss", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, counts: PixelCounts) -> None:
        """Add a batch."""
        self.confusion = self.confusion + counts.confusion
        self.loss += counts.loss
        self.pixels += counts.pixels

    def compute(self) -> dict[str, Tensor]:
        """``miou`` and ``pixel_accuracy`` in %, and ``loss``."""
        known = self.pixels.clamp(min=1)
        return {
            "miou": mean_iou(self.confusion),
            "pixel_accuracy": (100 * self.confusion.diagonal().sum() / known).float(),
            "loss": (self.loss / known).float(),
        }


class PixelClassificationModule(LightningModule):
    """Semantic segmentation with a network that gives logits itself, SGD and a polynomial learning rate.

    `SegmentationModule` trains backbones under heads of mmseg; this one needs no library. The defaults are those of
    Auto-DeepLab's final training as far as they are known (Liu et al., CVPR 2019, sec. 5.1): learning rate 0.05, power
    0.9. Momentum and weight decay are those of DeepLab's public code (recalled, not verified). Where the network has
    `DropPath` more and more is dropped, up to its share at the end.

    The four hooks of every task class: `configure_models`, `configure_losses`, `configure_metrics` and Lightning's
    `configure_optimizers`.

    Logged at the end of an epoch, over all images of all ranks: ``train_loss``; ``val_loss``; and over all known pixels
    ``val_miou`` and ``val_pixel_accuracy`` in %.

    Args:
        network: float32 ``[batch, 3, height, width]`` to logits ``[batch, classes, h, w]``; batches are read as
            `SegmentationObjective` reads them.
        learning_rate: at the beginning, or behind the warm-up.
        momentum: of SGD.
        weight_decay: on all parameters, those of normalisation included.
        schedule: of the learning rate; None for the power 0.9 of what is left of the run.
        mean: of the values of red, green and blue, from 0 to 255, which mmseg's images are normalised by (ImageNet).
        std: likewise.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 4e-5,
        schedule: LearningRateSchedule | None = None,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ):
        super().__init__()
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.schedule = schedule or LearningRateSchedule("poly")
        self.mean, self.std = mean, std
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self, network: nn.Module) -> None:
        """Put the network in place."""
        self.network, self._drops = network, bool(set_drop_path(network, 0.0))

    def configure_losses(self) -> None:
        """Set what reads batches and compares logits with labels."""
        self.objective = SegmentationObjective(mean=self.mean, std=self.std)

    def configure_metrics(self) -> None:
        """Set the means over an epoch."""
        self.train_loss = MeanOverImages()
        self.val_means = PixelMeans()

    def configure_optimizers(self) -> Any:
        """SGD, and the schedule over all iterations of the run."""
        optimizer = torch.optim.SGD(
            self.parameters(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        factor = self.schedule.factor(self.learning_rate, self._iterations(), self.trainer.max_epochs)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _iterations(self) -> float:
        iterations = self.trainer.estimated_stepping_batches
        if math.isinf(iterations):
            raise ScheduleError("the schedule needs an end: set max_epochs or max_steps")
        return iterations

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        return self.network(images)

    def on_train_start(self) -> None:
        """Ask for the length of the run once."""
        self._length = self._iterations()

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The loss of one batch."""
        if self._drops:
            set_drop_path(self.network, self.global_step / self._length)
        loss, images = self.objective.loss(self.network, batch), self.objective.images(batch)
        self.train_loss.update(loss.detach() * images, images)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Count the pixels of one batch."""
        self.val_means.update(self.objective.counts(self.network, batch))

    def on_validation_epoch_end(self) -> None:
        """Log scores and loss over all pixels."""
        for name, value in self.val_means.compute().items():
            self.log(f"val_{name}", value)
        self.val_means.reset()
