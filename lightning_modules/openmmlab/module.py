"""What training a detector of mmdet and a segmentation network of mmseg have in common."""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lightning_modules.classification import MeanOverImages
from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.openmmlab.config import Library, named_code, plain_config, quiet_metrics
from lightning_modules.openmmlab.names import Named

Batch = dict[str, Any]
"""``inputs``: uint8 images ``[3, height, width]``; ``data_samples``: one of the library's samples for each."""


class OpenMMLabModule(LightningModule, ABC):
    """A model of mmdet or mmseg around a backbone of ours: its losses, its predictions and its metrics as they are.

    Batches are those of mmengine's ``pseudo_collate``; the model's ``data_preprocessor`` normalises and pads them. The
    data module says ``val_metrics()``: fresh metrics of the library, which gather results over all ranks.

    The four hooks of every task class: `configure_models`, `configure_losses`, `configure_metrics` and Lightning's
    `configure_optimizers`.

    Args:
        network: has ``backbone`` and ``num_classes``; the rest of it is left aside.
        learning_rate: of SGD, at the schedule's highest.
        momentum: of SGD.
        weight_decay: on all parameters, those of normalisation included.
        schedule: of the learning rate.
    """

    metric_names: ClassVar[Mapping[str, tuple[str, float]]]
    """The library's metrics: what each is called here, and the factor that makes it a percentage."""

    library: ClassVar[Library]
    config_argument: ClassVar[str]
    """Which argument names the model's config."""
    stock: ClassVar[Mapping[str, str]]
    """The library's own configs by short name."""

    model: nn.Module
    num_classes: int

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        schedule: LearningRateSchedule,
    ):
        super().__init__()
        if not learning_rate > 0:
            raise ValueError(f"learning_rate is {learning_rate}, more than 0 is needed")
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.schedule = schedule
        self.metrics: list[Any] = []
        self.images_evaluated = 0
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """No warm-up of hundreds of steps."""
        return {"schedule": {"shape": "constant", "warmup": 0.0}}

    @classmethod
    def named_code(cls, arguments: Mapping[str, Any]) -> Iterator[Named]:
        """What a module of these arguments would import or run, beside what the library has registered."""
        wanted, overrides = arguments.get(cls.config_argument), arguments.get("overrides")
        return named_code(cls.library, cls.config_argument, wanted, overrides, cls.stock)

    @classmethod
    def plain_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The same arguments without a config file of the user's own: what it says, in its place."""
        if (wanted := arguments.get(cls.config_argument)) is None:
            return dict(arguments)
        return {**arguments, cls.config_argument: plain_config(cls.library, cls.config_argument, wanted, cls.stock)}

    @abstractmethod
    def configure_models(self, network: nn.Module) -> None:
        """Set ``model``, the library's model around the backbone, and ``num_classes``."""

    def configure_losses(self) -> None:
        """The losses belong to the model's heads; ``overrides`` reach them."""

    def configure_metrics(self) -> None:
        """Set the mean of the training loss; those of validation are the data module's."""
        self.train_loss = MeanOverImages()

    def configure_optimizers(self) -> Any:
        """SGD, its learning rate following the schedule iteration by iteration."""
        optimizer = torch.optim.SGD(
            self.parameters(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        iterations, epochs = self.trainer.estimated_stepping_batches, self.trainer.max_epochs
        if math.isinf(iterations):
            raise ValueError("the learning rate's schedule needs an end: set max_epochs or max_steps")
        epochs = epochs if epochs is not None and epochs > 0 and self.trainer.max_steps == -1 else None
        factor = self.schedule.factor(self.learning_rate, int(iterations), epochs)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Refuse data with another number of classes: labels beyond the model's would only fail inside a loss."""
        offered = getattr(getattr(self.trainer, "datamodule", None), "num_classes", self.num_classes)
        if offered != self.num_classes:
            raise ValueError(
                f"the data have {offered} classes and the network {self.num_classes}; build it with as many"
            )

    # ---- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The sum of the model's losses over one batch."""
        images = len(batch["inputs"])
        with _explained_batch_norm():
            loss, _ = self.model.parse_losses(self.losses(batch))  # type: ignore[operator]
        self.train_loss.update(loss.detach() * images, images)
        return loss

    def losses(self, batch: Batch) -> dict[str, Any]:
        """The model's losses of a batch, by the library's names, and the accuracies that it reports beside them."""
        data = self.preprocess(batch, training=True)
        return self.model.loss(data["inputs"], data["data_samples"])  # type: ignore[operator]

    def preprocess(self, batch: Batch, training: bool) -> Batch:
        """A batch as the model wants it: float32 ``[batch, 3, height, width]``, normalised and padded."""
        preprocessor: Any = self.model.data_preprocessor
        # It copies the batch to a device of its own, which only mmengine's way of moving models would have set.
        preprocessor.to(self.device)
        return preprocessor(batch, training)

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    # ---- evaluation ------------------------------------------------------------------------------------------------

    def predict_samples(self, batch: Batch, testing: bool = False) -> list[Any]:
        """The batch's samples with the model's predictions in them.

        Args:
            batch: images and samples.
            testing: whether to spend what only final results are worth, where the task knows such a thing.
        """
        data = self.preprocess(batch, training=False)
        return self.model.predict(data["inputs"], data["data_samples"])  # type: ignore[operator]

    @abstractmethod
    def predict(self, images: Sequence[Tensor]) -> list[Any]:
        """Predictions for images, which need no labels."""

    def forward(self, images: Sequence[Tensor]) -> list[Any]:
        """As `predict`."""
        return self.predict(images)

    def on_validation_epoch_start(self) -> None:
        """Take fresh metrics from the data module."""
        self._start_metrics()

    def on_test_epoch_start(self) -> None:
        """Take fresh metrics from the data module."""
        self._start_metrics()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Hand the predictions for one batch to the metrics."""
        self._process(batch, self.predict_samples(batch))

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Hand the predictions for one batch to the metrics."""
        self._process(batch, self.predict_samples(batch, testing=True))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all images of all ranks."""
        self._log_metrics("val", self.trainer.val_dataloaders)

    def on_test_epoch_end(self) -> None:
        """Log the metrics over all images of all ranks."""
        self._log_metrics("test", self.trainer.test_dataloaders)

    def _start_metrics(self) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "val_metrics"):
            raise ValueError(
                f"{type(self).__name__} asks its data module for 'val_metrics()', and {type(data).__name__} has none; "
                "pass one that does to the Trainer as 'datamodule'"
            )
        with quiet_metrics():
            self.metrics, self.images_evaluated = list(data.val_metrics()), 0

    def _process(self, batch: Batch, samples: list[Any]) -> None:
        # On the CPU, for the libraries' histograms have no deterministic form on a GPU.
        plain = [sample.cpu().to_dict() for sample in samples]
        self.images_evaluated += len(plain)
        for metric in self.metrics:
            metric.process(batch, plain)

    def _log_metrics(self, prefix: str, loaders: Any) -> None:
        size = self._count_images(loaders)
        results: dict[str, float] = {}
        for metric in self.metrics:
            if self.trainer.world_size > 1 and metric.collect_device == "cpu" and metric.collect_dir is None:
                # Ranks exchange results through files; the library would make a folder where the user happens to be.
                metric.collect_dir = self.trainer.strategy.broadcast(
                    tempfile.mkdtemp() if self.global_rank == 0 else ""
                )
            with quiet_metrics():
                results |= {name.split("/")[-1]: value for name, value in metric.evaluate(size).items()}
        self.metrics = []
        for name, value in self.read_results(results).items():
            # The library has given every rank the same number.
            self.log(f"{prefix}_{name}", float(value), rank_zero_only=False)

    def read_results(self, results: Mapping[str, float]) -> dict[str, float]:
        """Our names and units for what the library's metrics returned; what has no name here is left out."""
        return {
            name: factor * results[theirs] for theirs, (name, factor) in self.metric_names.items() if theirs in results
        }

    def _count_images(self, loaders: Any) -> int:
        """How many images there are over all ranks.

        Lightning's sampler repeats images where ranks do not divide them evenly. The libraries put results back into
        the order of the data and cut off the repeated ones, given this number.
        """
        loaders = loaders if isinstance(loaders, (list, tuple)) else [loaders]
        total = torch.tensor(self.images_evaluated, device=self.device)
        seen = int(self.trainer.strategy.reduce(total, reduce_op="sum"))
        try:
            return min(seen, sum(len(loader.dataset) for loader in loaders))
        except (AttributeError, TypeError):  # a loader of its own kind, or a stream
            return seen


@contextmanager
def inference_of(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode of every layer is put back."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for each, mode in modes:
            each.training = mode


@contextmanager
def _explained_batch_norm() -> Iterator[None]:
    """Say what to do where a layer normalises one value a channel: a lone image in a step, pooled to one pixel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "batch normalisation got one value a channel: a step had a single image and a layer pools it to one pixel. "
            "Use a batch_size of at least 2 and drop_last (the last batch may be smaller), larger images, the "
            "Trainer's sync_batchnorm over several devices, or another norm_cfg in 'overrides'"
        ) from error
