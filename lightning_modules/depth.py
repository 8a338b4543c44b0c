"""Training one network to estimate depth from one image: the MiDaS recipe."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lightning_modules.classification import MeanOverImages
from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.networks.depth_decoder import DecodedBackbone
from lightning_modules.objectives.depth import (
    DepthLoss,
    LeastSquaresSSILoss,
    TrimmedSSILoss,
    count_images,
    disparity_rmse,
)

Batch = tuple[Tensor, tuple[Tensor, Tensor]]
"""Images, and the inverse depth with its mask."""


class DepthModule(LightningModule):
    """Monocular depth estimation with Adam and a learning rate that falls in steps.

    The defaults are those of the landmark paper's depth experiments (Landmark Regularization, CVPR 2021, and its public
    code): the layers of ``network.backbone`` learn ten times slower than the others. Batch size and augmentation belong
    to the data module.

    The four hooks of every task class: `configure_models`, `configure_losses`, `configure_metrics` and Lightning's
    `configure_optimizers`.

    Logged at the end of an epoch, over all images of all ranks that have known pixels: ``train_loss``; ``val_loss``,
    the same loss on the validation images; ``val_score``, its negative, for searches that maximise; and
    ``val_disparity_rmse``, the root mean squared error of each image under its best scale and shift, in the unit of the
    data's inverse depth.

    Args:
        network: float32 ``[batch, 3, height, width]`` to inverse depth ``[batch, 1, height, width]``.
        loss: ``trimmed``, MiDaS' trimmed loss with its gradient term, or ``least_squares``. The trimmed one scales
            predictions by a deviation, which has no sign: a network that begins with far and near the wrong way round
            may stay so (`DepthNetwork` has a ``flat_start`` against that). By least squares the scale may be negative.
        learning_rate: of everything but the backbone.
        backbone_learning_rate: of the parts of the network called ``backbone``.
        weight_decay: on all parameters.
        step_epochs: after so many epochs the learning rates are multiplied by ``gamma``, and again after as many more.
        gamma: see ``step_epochs``.
        decoder: ``network`` where the network itself gives inverse depth; ``fpn`` to keep its ``backbone`` only and to
            put a `DepthDecoder` on that, initialised from torch's random state.
        decoder_channels: of the decoder.

    Raises:
        ValueError: there is no such loss or decoder, the network has no backbone to decode, or a number is out of
            range.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Literal["trimmed", "least_squares"] = "trimmed",
        learning_rate: float = 1e-4,
        backbone_learning_rate: float = 1e-5,
        weight_decay: float = 0.0,
        step_epochs: int = 100,
        gamma: float = 0.1,
        decoder: Literal["network", "fpn"] = "network",
        decoder_channels: int = 64,
    ):
        super().__init__()
        if loss not in ("trimmed", "least_squares"):
            raise ValueError(f"loss is '{loss}', allowed: trimmed, least_squares")
        if decoder not in ("network", "fpn"):
            raise ValueError(f"decoder is '{decoder}', allowed: network, fpn")
        if step_epochs < 1:
            raise ValueError(f"step_epochs is {step_epochs}, at least 1 is needed")
        self.loss, self.learning_rate, self.backbone_learning_rate = loss, learning_rate, backbone_learning_rate
        self.weight_decay, self.step_epochs, self.gamma = weight_decay, step_epochs, gamma
        self.decoder, self.decoder_channels = decoder, decoder_channels
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self, network: nn.Module) -> None:
        """Put the network in place, or its backbone under a decoder."""
        if self.decoder == "network":
            self.network = network
            return
        backbone = getattr(network, "backbone", None)
        if backbone is None or not hasattr(backbone, "channels"):
            raise ValueError(
                f"decoder is 'fpn', but {type(network).__name__} has no 'backbone' that says its 'channels'; allowed "
                "for it: network"
            )
        self.network = DecodedBackbone(backbone, self.decoder_channels)

    def configure_losses(self) -> None:
        """Set the loss of training and validation."""
        self.criterion: DepthLoss = TrimmedSSILoss() if self.loss == "trimmed" else LeastSquaresSSILoss()

    def configure_metrics(self) -> None:
        """Set the means over an epoch."""
        self.train_loss = MeanOverImages()
        self.val_loss = MeanOverImages()
        self.val_score = MeanOverImages()
        self.val_disparity_rmse = MeanOverImages()

    def configure_optimizers(self) -> Any:
        """Adam with a slower backbone; both learning rates fall every ``step_epochs`` epochs."""
        named = list(self.network.named_parameters())
        backbone = [parameter for name, parameter in named if "backbone" in name.split(".")]
        rest = [parameter for name, parameter in named if "backbone" not in name.split(".")]
        groups = [
            {"params": parameters, "lr": rate}
            for parameters, rate in ((rest, self.learning_rate), (backbone, self.backbone_learning_rate))
            if parameters
        ]
        optimizer = torch.optim.Adam(groups, lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = LearningRateSchedule("steps", every=self.step_epochs, gamma=self.gamma)
        # Counted in epochs, however many there will be.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, steps.factor(self.learning_rate, math.inf))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def forward(self, images: Tensor) -> Tensor:
        """Inverse depth of images."""
        return self.network(images)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of one batch."""
        images, (inverse_depth, mask) = batch
        losses = self.criterion.per_image(self(images), inverse_depth, mask)
        images_counted = count_images(mask)
        self._update(self.train_loss, losses.detach(), images_counted)
        return losses.sum() / images_counted.clamp(min=1)

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Loss and error of one batch."""
        images, (inverse_depth, mask) = batch
        prediction, images_counted = self(images), count_images(mask)
        losses = self.criterion.per_image(prediction, inverse_depth, mask)
        self._update(self.val_loss, losses, images_counted)
        self._update(self.val_score, -losses, images_counted)
        self._update(self.val_disparity_rmse, disparity_rmse(prediction, inverse_depth, mask), images_counted)

    def on_validation_epoch_end(self) -> None:
        """Log loss, score and error over all images."""
        self.log("val_loss", self.val_loss)
        self.log("val_score", self.val_score)
        self.log("val_disparity_rmse", self.val_disparity_rmse)

    @staticmethod
    def _update(metric: MeanOverImages, values: Tensor, images: Tensor) -> None:
        # The count stays on the device: as a number it would make the host wait in every step.
        metric.update(values.sum(), images)  # type: ignore[arg-type]
