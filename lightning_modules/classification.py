"""Training one network to classify images: the NAS-Bench-201 recipe."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric


class MeanOverImages(Metric):
    """A mean over all images of an epoch and of all ranks.

    torchmetrics' MeanMetric looks for NaN, and so waits for the device, in every step; with that switched off it
    forgets its weights (release 1.9).
    """

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, total: Tensor, images: int) -> None:
        """Add a batch: the sum of a quantity over its images, and their number."""
        self.total += total
        self.images += images

    def compute(self) -> Tensor:
        """The mean so far."""
        return self.total / self.images


class ClassificationModule(LightningModule):
    """Image classification with SGD and a cosine schedule.

    The defaults are those of NAS-Bench-201: Nesterov momentum, a learning rate that falls to zero along a cosine,
    iteration by iteration, and cross-entropy. Batch size and augmentation belong to the data module.

    Four hooks make up a task class, here and in every other one; a variant overrides the one it changes:
    `configure_models`, `configure_losses`, `configure_metrics` and Lightning's `configure_optimizers`.

    Logged at the end of an epoch, over all images of all ranks: ``train_loss``, ``val_loss`` and ``val_accuracy``
    (top-1, in %). With several ranks Lightning's sampler repeats a few validation images where they do not divide
    evenly.

    Args:
        network: float32 ``[batch, channels, height, width]`` to logits ``[batch, classes]``.
        learning_rate: where the cosine starts.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: on all parameters, those of normalisation included.
        label_smoothing: 0 for none.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 5e-4,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.learning_rate, self.momentum, self.nesterov = learning_rate, momentum, nesterov
        self.weight_decay, self.label_smoothing = weight_decay, label_smoothing
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self, network: nn.Module) -> None:
        """Put the network in place."""
        self.network = network

    def configure_losses(self) -> None:
        """Set the training and the validation loss; smoothed labels are for training only."""
        self.criterion = nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)
        self.val_criterion = nn.CrossEntropyLoss()

    def configure_metrics(self) -> None:
        """Set the means over an epoch."""
        self.train_loss = MeanOverImages()
        self.val_loss = MeanOverImages()
        self.val_accuracy = MeanOverImages()

    def configure_optimizers(self) -> Any:
        """SGD, and a cosine from the learning rate to zero over all iterations of the run."""
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )
        iterations = self.trainer.estimated_stepping_batches
        if math.isinf(iterations):
            raise ValueError("the cosine schedule needs an end: set max_epochs or max_steps")
        cosine = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda iteration: 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """The loss of one batch."""
        images, labels = batch
        loss = self.criterion(self(images), labels)
        self.train_loss.update(loss.detach() * len(labels), len(labels))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Loss and hits of one batch."""
        images, labels = batch
        logits = self(images)
        self.val_loss.update(self.val_criterion(logits, labels) * len(labels), len(labels))
        # Sums of 0 and 100 are exact in float32 up to 167,000 images.
        self.val_accuracy.update(100.0 * (logits.argmax(dim=1) == labels).sum(), len(labels))

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy over all images."""
        self.log("val_loss", self.val_loss)
        self.log("val_accuracy", self.val_accuracy)
