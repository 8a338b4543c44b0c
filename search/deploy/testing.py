"""How good a trained network is on images that chose nothing, neither its architecture nor its epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from lightning_modules.objectives.segmentation import confusion_of
from search.deploy.drawing import with_mask
from search.deploy.network_folder import network_of
from search.errors import RunError, explain
from search.training.isolation import isolated, quiet_lightning
from search.training.trainer_arguments import arguments_here
from search.training.watch import logged_by

if TYPE_CHECKING:
    from PIL.Image import Image

    from search.tasks.trained import TrainedTask

_MISTAKES = 12
"""Images of wrong answers that are kept to be shown (assumed: two rows of a page)."""
_EXAMPLES = 6
_OF_THE_MACHINE = ("accelerator", "precision", "deterministic")
IGNORED = 255
"""The label of pixels that do not count, in every data module here."""
_LARGEST = 2000
"""Classes, above which no table of labels by predictions is made (assumed: 32 MB)."""


@dataclass(frozen=True)
class Mistake:
    """An image that was given another class than its own.

    Attributes:
        image: as the network saw it, float32 ``[channels, height, width]``.
        label: its class.
        found: the class that it was given.
    """

    image: Tensor
    label: int
    found: int


@dataclass(frozen=True)
class Tested:
    """What came of the test.

    Attributes:
        images: how many there are.
        metrics: what validation logs as ``val_...``, as ``test_...``.
        confusion: images, or pixels, by label and by prediction, int64 ``[classes, classes]``; None where the network
            does neither classify images nor pixels.
        of: what the table counts.
        mistakes: the first images that were given another class.
        examples: the first pictures under the classes of their pixels.
    """

    images: int
    metrics: dict[str, float]
    confusion: np.ndarray | None = None
    of: Literal["images", "pixels"] = "images"
    mistakes: Sequence[Mistake] = field(default=(), repr=False)
    examples: Sequence[Image] = field(default=(), repr=False)

    @property
    def of_classes(self) -> list[float | None]:
        """Of each class, in %: the accuracy on its images, or the intersection over union of its pixels.

        None for a class that no label shows, nor, of pixels, any prediction.
        """
        if self.confusion is None:
            return []
        hits, labelled = np.diag(self.confusion), self.confusion.sum(1)
        whole = labelled if self.of == "images" else labelled + self.confusion.sum(0) - hits
        return [100.0 * int(hit) / int(all_) if all_ else None for hit, all_ in zip(hits, whole, strict=True)]


def has_test(data: Any) -> bool:
    """Whether data have images that choose nothing (`datamodules.protocols.TestedData`)."""
    said = getattr(data, "has_test", None)
    return type(data).test_dataloader is not LightningDataModule.test_dataloader if said is None else bool(said)


def measure_on_test_images(task: TrainedTask, module: LightningModule) -> Tested | None:
    """Validate a trained module on the test images of its data, on one device.

    Args:
        task: that trained it; whatever its validation logs is measured in the same way here.
        module: with its trained weights.

    Returns:
        None where the data have no test images.

    Raises:
        RunError: the test images can't be read, or the module can't do with them.
    """
    try:
        if not has_test(task.data):
            return None
        arguments = {"devices": 1} | {key: task.trainer[key] for key in _OF_THE_MACHINE if key in task.trainer}
        with isolated(), quiet_lightning():
            torch.set_num_threads(task.threads or torch.get_num_threads())
            trainer = Trainer(
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                callbacks=[watch := _Watch(module)],
                **arguments_here(arguments, command="train"),
            )
            with closing(watch):
                data = _TestAsValidation(task.data)
                trainer.validate(module, datamodule=data, verbose=False)
            logged = logged_by(trainer)
    except Exception as error:
        raise RunError(f"the test images: {explain(error)}; the training is kept, the same again tests it") from error
    metrics = {
        f"test_{name.removeprefix('val_')}": v
        for name, v in logged.items()
        if name.startswith("val_") and math.isfinite(v)
    }
    if data.pixels is not None and data.pixels.table.any():
        return Tested(watch.images, metrics, data.pixels.table.numpy(), "pixels", examples=data.pixels.examples)
    return Tested(watch.images, metrics, watch.table, watch.of, watch.mistakes, watch.examples)


class _TestAsValidation(LightningDataModule):
    """A data module whose test images stand where those for validation stood.

    Args:
        data: of which everything else is.
    """

    def __init__(self, data: Any):
        super().__init__()
        self._data = data
        self.pixels: _PixelTable | None = None
        if callable(metrics := getattr(data, "test_metrics", getattr(data, "val_metrics", None))):
            self.pixels = _PixelTable(data.num_classes)
            self.val_metrics = lambda: [*metrics(), self.pixels]

    def __getattr__(self, name: str) -> Any:
        if name == "_data":  # not there yet
            raise AttributeError(name)
        return getattr(self._data, name)

    def prepare_data(self) -> None:
        """As the data do."""
        self._data.prepare_data()

    def setup(self, stage: str) -> None:
        """Make the test images ready, as Lightning would."""
        self._data.setup("test")

    def val_dataloader(self) -> Any:
        """The test images."""
        return self._data.test_dataloader()


class _PixelTable:
    """Counts pixels where mmseg's metrics look at its predictions; to them it is one more metric.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int):
        self.table = torch.zeros(classes, classes, dtype=torch.int64)
        self.examples: list[Image] = []

    def process(self, batch: Any, samples: Sequence[Mapping[str, Any]]) -> None:
        """Add the predictions of a batch, of which those of a detector are none of pixels."""
        for image, sample in zip(batch["inputs"], samples, strict=True):
            if "pred_sem_seg" in sample:
                found, labels = (sample[key]["data"].long() for key in ("pred_sem_seg", "gt_sem_seg"))
                self.table += confusion_of(found, labels, len(self.table), IGNORED)
                if len(self.examples) < _EXAMPLES:
                    self.examples.append(_under_classes(image, found[0], len(self.table)))

    def evaluate(self, images: int) -> dict[str, float]:
        """Nothing more to log."""
        return {}


class _Watch(Callback):
    """Counts what a validated network answers, without a second look at the images.

    Args:
        module: that is validated.
    """

    def __init__(self, module: LightningModule):
        self.images = 0
        self.table: np.ndarray | None = None
        self.mistakes: list[Mistake] = []
        self.examples: list[Image] = []
        self.of: Literal["images", "pixels"] = "images"
        self._counted: Tensor | None = None
        self._answer: Any = None
        self._hook = network_of(module).register_forward_hook(self._note)

    def close(self) -> None:
        """Leave the network."""
        self._hook.remove()

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count a batch."""
        self.images += _images_in(batch)
        answer, self._answer = self._answer, None
        if isinstance(answer, Tensor) and answer.dim() == 4 and isinstance(batch, Mapping):
            self._show(batch["inputs"], answer)
        labels = batch[1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None
        if not (isinstance(answer, Tensor) and answer.dim() == 2 and isinstance(labels, Tensor)):
            return
        classes = answer.shape[1]
        if labels.shape != answer.shape[:1] or labels.is_floating_point() or not 1 < classes <= _LARGEST:
            return
        found = answer.argmax(1)
        counts = confusion_of(found, labels, classes, -1)
        self._counted = counts if self._counted is None else self._counted + counts
        if isinstance(batch[0], Tensor) and len(self.mistakes) < _MISTAKES:
            wrong = (found != labels).nonzero().flatten()[: _MISTAKES - len(self.mistakes)]
            self.mistakes += [Mistake(batch[0][k].cpu(), int(labels[k]), int(found[k])) for k in wrong.tolist()]

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the table of pixels where the module itself has one; Lightning asks it later, and it may then forget."""
        counted = self._counted
        for place in (("val_means", "confusion"), ("table", "table")):
            table = getattr(getattr(module, place[0], None), place[1], None)
            if isinstance(table, Tensor) and table.dim() == 2 and len(table) > 1:
                counted, self.of = table, "pixels"
        self.table = None if counted is None else counted.cpu().numpy().astype(np.int64)

    def _show(self, pictures: Sequence[Tensor], logits: Tensor) -> None:
        """Keep the first pictures under their pixels' classes; not those that were padded to the size of others."""
        if len({picture.shape for picture in pictures}) == 1:
            for picture, each in zip(pictures, logits[: _EXAMPLES - len(self.examples)], strict=False):
                self.examples.append(_under_classes(picture, each.argmax(0), len(each)))

    def _note(self, network: Any, images: Any, answer: Any) -> None:
        self._answer = answer


def _under_classes(image: Tensor, found: Tensor, classes: int) -> Image:
    """A picture as mmseg has it, uint8 ``[3, height, width]`` in the order blue, green, red, under its pixels' classes.

    Args:
        image: the picture.
        found: the class of every pixel, perhaps of another size.
        classes: how many.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image.cpu().numpy()[::-1].transpose(1, 2, 0)))
    mask = Image.fromarray(found.cpu().numpy().astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    return with_mask(picture, np.asarray(mask), classes)


def _images_in(batch: Any) -> int:
    """How many images a batch has: as many as labels, where it has these."""
    if isinstance(batch, Mapping):
        return len(batch.get("inputs", ()))
    if isinstance(batch, (tuple, list)) and batch:
        return _images_in(batch[-1] if isinstance(batch[-1], Tensor) else batch[0])
    return len(batch) if isinstance(batch, Tensor) else 0
