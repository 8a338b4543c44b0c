"""Training an encoder and a decoder to label every pixel, as FastDenseNAS does: two optimisers, and several tricks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.classification import MeanOverImages
from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.objectives.segmentation import SegmentationObjective
from lightning_modules.pixel_metrics import PixelTable

IGNORED = 255


class EncoderDecoderModule(LightningModule):
    """Semantic segmentation by a network with an ``encoder`` and a ``decoder`` (FastDenseNAS, Nekrasov et al. 2019).

    The encoder learns by SGD with momentum, the decoder by Adam, each with its own limit on gradients; so the Trainer's
    ``gradient_clip_val`` stays away. The defaults are the paper's code's.

    A training batch is one of three: images and label maps, mmseg's dict of ``inputs`` and ``data_samples``, or a dict
    of ``features`` (the encoder's maps, computed before), ``labels`` and, with a teacher, its ``teacher`` logits, at
    the size of the labels.

    Three tricks, each of which 0 switches off:

    * ``auxiliary``: the weight of the cross-entropy of each block's own classifier;
    * ``distillation``: the weight of the mean squared difference to the teacher's logits, where a batch has some;
    * ``polyak`` and ``frozen_polyak``: a running average of the weights (not of normalisation's statistics), which is
      written back into them after every epoch; it keeps this share of itself a step.

    Logged at the end of an epoch, over all images of all ranks: ``train_loss``; ``val_loss``, and in %, over the
    classes that occur but the background: ``val_miou``, ``val_class_accuracy``, ``val_frequency_weighted_iou``, their
    geometric mean ``val_reward``, and ``val_pixel_accuracy``. The same as ``test_...`` by Lightning's ``test``.

    Args:
        network: has ``encoder``, ``decoder`` and ``num_classes``.
        encoder_learning_rate: of SGD.
        decoder_learning_rate: of Adam.
        momentum: of SGD.
        weight_decay: of both.
        gradient_clip: the largest norm of the gradients of each of both; 0 for any.
        auxiliary: see above.
        distillation: see above.
        polyak: see above; where all weights learn.
        frozen_polyak: likewise, where the encoder is frozen.
        background: a class that the means leave out; None for none.
        schedule: of both learning rates; None for constant ones.

    Raises:
        ValueError: the network lacks a part, or a number is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        encoder_learning_rate: float = 1e-3,
        decoder_learning_rate: float = 3e-3,
        momentum: float = 0.9,
        weight_decay: float = 1e-5,
        gradient_clip: float = 3.0,
        auxiliary: float = 0.15,
        distillation: float = 0.3,
        polyak: float = 0.99,
        frozen_polyak: float = 0.9,
        background: int | None = None,
        schedule: LearningRateSchedule | None = None,
    ):
        super().__init__()
        for name in ("encoder", "decoder", "num_classes"):
            if not hasattr(network, name):
                raise ValueError(
                    f"{type(self).__name__} needs a network with '{name}', and {type(network).__name__} "
                    "has none; FastDense builds such networks"
                )
        for name, value in (
            ("encoder_learning_rate", encoder_learning_rate),
            ("decoder_learning_rate", decoder_learning_rate),
        ):
            if not value > 0:
                raise ValueError(f"{name} is {value}, more than 0 is needed")
        for name, value in (("polyak", polyak), ("frozen_polyak", frozen_polyak)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}, 0 or more and less than 1 is needed")
        for name, value in (("auxiliary", auxiliary), ("distillation", distillation), ("gradient_clip", gradient_clip)):
            if not value >= 0:
                raise ValueError(f"{name} is {value}, 0 or more is needed")
        self.automatic_optimization = False
        self.encoder_learning_rate, self.decoder_learning_rate = encoder_learning_rate, decoder_learning_rate
        self.momentum, self.weight_decay, self.gradient_clip = momentum, weight_decay, gradient_clip
        self.auxiliary, self.distillation = auxiliary, distillation
        self.polyak, self.frozen_polyak, self.background = polyak, frozen_polyak, background
        self.schedule = schedule or LearningRateSchedule("constant")
        self.encoder_is_frozen = False
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self, network: nn.Module) -> None:
        """Put the network in place; its averages begin with the training."""
        self.network: Any = network
        self.num_classes = int(network.num_classes)  # type: ignore[arg-type]
        self._averages: list[Tensor] = []

    def configure_losses(self) -> None:
        """Cross-entropy of pixels; how batches of pictures are read."""
        self.pictures = SegmentationObjective(ignored=IGNORED)

    def configure_metrics(self) -> None:
        """Set the means over an epoch."""
        self.train_loss, self.val_loss = MeanOverImages(), MeanOverImages()
        self.table = PixelTable(self.num_classes, IGNORED, self.background)

    def freeze_encoder(self) -> None:
        """From now on only the decoder learns: the encoder's weights and statistics stay as they are."""
        self.encoder_is_frozen = True
        self.network.encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> EncoderDecoderModule:
        """Switch between training and evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if mode and self.encoder_is_frozen:
            self.network.encoder.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Adam for the decoder, and SGD for an encoder that learns."""
        decoder = torch.optim.Adam(
            self.network.decoder.parameters(), lr=self.decoder_learning_rate, weight_decay=self.weight_decay
        )
        optimizers: list[torch.optim.Optimizer] = [decoder]
        if not self.encoder_is_frozen:
            encoder = self.network.encoder.parameters()
            optimizers.append(
                torch.optim.SGD(encoder, self.encoder_learning_rate, self.momentum, weight_decay=self.weight_decay)
            )
        iterations, epochs = self.trainer.estimated_stepping_batches, self.trainer.max_epochs
        if math.isinf(iterations):
            raise ValueError("the learning rate's schedule needs an end: set max_epochs or max_steps")
        factor = self.schedule.factor(self.decoder_learning_rate, int(iterations), epochs)
        schedulers = [torch.optim.lr_scheduler.LambdaLR(each, factor) for each in optimizers]
        return optimizers, schedulers

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        return self.network(images)

    # ---- training --------------------------------------------------------------------------------------------------

    def losses(self, batch: Any) -> tuple[Tensor, int]:
        """The weighted sum of all losses of a batch, and how many images it has."""
        teacher: Tensor | None = None
        if isinstance(batch, dict) and "features" in batch:
            features, labels, teacher = batch["features"], batch["labels"], batch.get("teacher")
        else:
            images, labels = self.pictures.read(batch)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_is_frozen):
                features = self.network.encoder(images)
        logits, others = (
            self.network.decoder.with_auxiliary(features) if self.auxiliary else (self.network.decoder(features), [])
        )
        loss = self.cross_entropy(logits, labels)
        if teacher is not None and self.distillation:
            resized = _resized(logits, teacher.shape[-2:])
            loss = loss + self.distillation * functional.mse_loss(resized, teacher)
        for each in others:
            loss = loss + self.auxiliary * self.cross_entropy(each, labels)
        return loss, len(labels)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over pixels that count, of logits ``[batch, classes, h, w]`` at the size of the labels."""
        logits = _resized(logits, labels.shape[-2:])
        total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        return total / (labels != IGNORED).sum().clamp(min=1)

    def on_train_start(self) -> None:
        """Averages begin at the weights, unless a checkpoint has brought them."""
        known = self._averages or ([each.detach().clone() for each in self._averaged()] if self._decay else [])
        self._averages = [each.to(self.device) for each in known]

    def training_step(self, batch: Any, batch_index: int) -> None:
        """One step of both optimisers."""
        loss, images = self.losses(batch)
        optimizers: Any = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for each in optimizers:
            each.zero_grad()
        self.manual_backward(loss)
        for each in optimizers:
            if self.gradient_clip:
                weights = [weight for group in each.param_groups for weight in group["params"]]
                nn.utils.clip_grad_norm_(weights, self.gradient_clip)
            each.step()
        schedulers: Any = self.lr_schedulers()
        for each in schedulers if isinstance(schedulers, list) else [schedulers]:
            each.step()
        self._average()
        self.train_loss.update(loss.detach() * images, images)

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    @property
    def _decay(self) -> float:
        return self.frozen_polyak if self.encoder_is_frozen else self.polyak

    def _averaged(self) -> Iterable[Tensor]:
        return (self.network.decoder if self.encoder_is_frozen else self.network).parameters()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averages; behind the last step of an epoch, before it is validated, they are the weights."""
        if not self._decay:
            return
        weights = [each.detach() for each in self._averaged()]
        torch._foreach_lerp_(self._averages, weights, 1 - self._decay)
        if self.trainer.is_last_batch:
            torch._foreach_copy_(weights, self._averages)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Averages go with the checkpoint."""
        checkpoint["polyak"] = self._averages

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on behind them."""
        self._averages = [each.clone() for each in checkpoint["polyak"]]

    # ---- evaluation ------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Loss and predictions of one batch."""
        self._evaluate(batch)

    def test_step(self, batch: Any, batch_index: int) -> None:
        """Loss and predictions of one batch."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Log over all images."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log over all images."""
        self._log("test")

    def _evaluate(self, batch: Any) -> None:
        images, labels = self.pictures.read(batch)
        logits = _resized(self(images), labels.shape[-2:])
        self.val_loss.update(self.cross_entropy(logits, labels) * len(labels), len(labels))
        self.table.update(logits.argmax(1), labels)

    def _log(self, prefix: str) -> None:
        self.log(f"{prefix}_loss", self.val_loss)
        for name, value in self.table.compute().items():
            self.log(f"{prefix}_{name}", value, rank_zero_only=False)
        self.table.reset()


def _resized(logits: Tensor, size: Any) -> Tensor:
    if logits.shape[-2:] == size:
        return logits
    return functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
