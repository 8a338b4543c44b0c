"""Training one network to classify images: the NAS-Bench-201 recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Optional

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lightning_modules.averaging import WeightAverage
from lightning_modules.learning_rate_schedule import LearningRateSchedule, ScheduleError
from lightning_modules.networks.drop_path import set_drop_path


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
    (top-1, in %); where there are more than five classes ``val_accuracy_top5`` too. With several ranks Lightning's
    sampler repeats a few validation images where they do not divide evenly.

    Args:
        network: float32 ``[batch, channels, height, width]`` to logits ``[batch, classes]``.
        learning_rate: where the cosine starts.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: on all parameters, those of normalisation included.
        label_smoothing: 0 for none.
        ema_decay: of an exponential moving average of the weights, which is then what is validated; 0 for none. It is
            part of checkpoints as ``average``.
        warmup_epochs: in which the learning rate climbs in equal steps to where the cosine starts.
        auxiliary_weight: of the loss of an auxiliary head, where the network has one
            (`lightning_modules.networks.auxiliary`); 0.4 is DARTS' and GDAS'. Only the network itself is validated, and
            ``train_loss`` is the sum.
        drop_path: how likely a term of a sum is left out in the last epoch
            (`lightning_modules.networks.drop_path`), linear in the epochs from 0 in the first; 0.2 is DARTS' and GDAS'.
        optimizer: of the weights, as ``torch.optim.AdamW``, in place of SGD and with a weight decay of its own; the
            learning rate is the one above all the same.

    Raises:
        ValueError: a number is out of range, or the network has nothing to drop.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 5e-4,
        label_smoothing: float = 0.0,
        ema_decay: float = 0.0,
        warmup_epochs: int = 0,
        auxiliary_weight: float = 0.4,
        drop_path: float = 0.0,
        optimizer: Optional[Callable[[Iterable[nn.Parameter]], Optimizer]] = None,  # noqa: UP045 - Python 3.10
    ):
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay is {ema_decay}, allowed: 0 (no average) up to, not including, 1")
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs is {warmup_epochs}, 0 or more are allowed")
        if auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight is {auxiliary_weight}, 0 or more is allowed")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is {drop_path}, allowed: 0 (never) up to, not including, 1")
        if drop_path and not set_drop_path(network, 0.0):
            raise ValueError(f"drop_path is {drop_path}, but a {type(network).__name__} has no paths to drop")
        self.auxiliary_weight, self.drop_path = auxiliary_weight, drop_path
        self.learning_rate, self.momentum, self.nesterov = learning_rate, momentum, nesterov
        self.weight_decay, self.label_smoothing = weight_decay, label_smoothing
        self.ema_decay, self.warmup_epochs, self.optimizer = ema_decay, warmup_epochs, optimizer
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"warmup_epochs": 0}

    def configure_models(self, network: nn.Module) -> None:
        """Put the network in place, and the average of its weights where one is kept."""
        self.network = network
        self.average = WeightAverage(network, self.ema_decay) if self.ema_decay else None

    def configure_losses(self) -> None:
        """Set the training and the validation loss; smoothed labels are for training only."""
        self.criterion = nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)
        self.val_criterion = nn.CrossEntropyLoss()

    def configure_metrics(self) -> None:
        """Set the means over an epoch."""
        self.train_loss = MeanOverImages()
        self.val_loss = MeanOverImages()
        self.val_accuracy = MeanOverImages()
        self.val_accuracy_top5 = MeanOverImages()
        self._has_top5 = False

    def configure_optimizers(self) -> Any:
        """The optimiser, and a cosine to zero over all iterations of the run but those of the warm-up."""
        learned = [each for each in self.parameters() if each.requires_grad]  # the average's do not
        if self.optimizer is None:
            optimizer: Optimizer = torch.optim.SGD(
                learned,
                lr=self.learning_rate,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
            )
        else:
            optimizer = self.optimizer(learned)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate
        iterations = self.trainer.estimated_stepping_batches
        if math.isinf(iterations):
            raise ScheduleError("the cosine schedule needs an end: set max_epochs or max_steps")
        cosine = LearningRateSchedule("cosine", warmup=self._warmup(iterations), climb="before")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine.factor(self.learning_rate, iterations))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _warmup(self, iterations: float) -> int:
        """Iterations of the warm-up.

        Raises:
            ScheduleError: nothing would be left of the run.
        """
        if not self.warmup_epochs:
            return 0
        epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        if self.warmup_epochs * epoch >= iterations:
            raise ScheduleError(
                f"warmup_epochs is {self.warmup_epochs}, the whole run has {iterations / epoch:g} epochs; "
                "it must have more, set max_epochs"
            )
        return self.warmup_epochs * epoch

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, and let the average follow."""
        step = self.trainer.global_step
        super().optimizer_step(*arguments, **named)
        if self.average is not None:
            self.average.update(self.network, step)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        return self.network(images)

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Set how likely paths are dropped in this epoch; at every step, for a training may go on in the middle."""
        if self.drop_path:
            epochs = self.trainer.max_epochs
            if epochs is None or epochs < 1:
                raise ScheduleError("drop_path rises from epoch to epoch and needs an end: set max_epochs")
            set_drop_path(self.network, self.drop_path * self.current_epoch / epochs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """The loss of one batch, with that of an auxiliary head where there is one; labels may be soft targets."""
        images, labels = batch
        if self.auxiliary_weight and getattr(self.network, "auxiliary", None) is not None:
            logits, auxiliary = self.network.with_auxiliary(images)  # type: ignore[operator]
            loss = self.criterion(logits, labels) + self.auxiliary_weight * self.criterion(auxiliary, labels)
        else:
            loss = self.criterion(self(images), labels)
        self.train_loss.update(loss.detach() * len(labels), len(labels))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Loss and hits of one batch."""
        images, labels = batch
        logits = self(images) if self.average is None else self.average(images)
        self.val_loss.update(self.val_criterion(logits, labels) * len(labels), len(labels))
        # Sums of 0 and 100 are exact in float32 up to 167,000 images.
        self.val_accuracy.update(100.0 * (logits.argmax(dim=1) == labels).sum(), len(labels))
        self._has_top5 = logits.shape[1] > 5
        if self._has_top5:
            hits = (logits.topk(5, dim=1).indices == labels.unsqueeze(1)).sum()
            self.val_accuracy_top5.update(100.0 * hits, len(labels))

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy over all images."""
        self.log("val_loss", self.val_loss)
        self.log("val_accuracy", self.val_accuracy)
        if self._has_top5:
            self.log("val_accuracy_top5", self.val_accuracy_top5)
