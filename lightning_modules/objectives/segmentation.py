"""Telling what every pixel of an image shows."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lightning_modules.objectives.base import Judgement, Network, Objective


class PixelCounts(NamedTuple):
    """What is counted over the known pixels of images.

    Attributes:
        confusion: pixels by label and by prediction, int64 ``[classes, classes]``.
        loss: the sum of their cross-entropies.
        pixels: their number.
    """

    confusion: Tensor
    loss: Tensor
    pixels: Tensor


def mean_iou(confusion: Tensor) -> Tensor:
    """The mean intersection over union, in %, over the classes that a label or a prediction shows.

    Args:
        confusion: pixels by label and by prediction, ``[classes, classes]``.
    """
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return (100 * (hits / union).nanmean()).float()


def confusion_of(found: Tensor, labels: Tensor, classes: int, ignored: int) -> Tensor:
    """Pixels by label and by prediction: int64 ``[classes, classes]``, without waiting for the device.

    Args:
        found: predicted classes, int64 ``[...]``.
        labels: of the same shape.
        classes: how many.
        ignored: the label of pixels that do not count.
    """
    known = labels != ignored
    places = (torch.where(known, labels, 0) * classes + found).flatten()
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=labels.device)
    return counts.index_add_(0, places, known.flatten().long()).view(classes, classes)


class SegmentationObjective(Objective):
    """Cross-entropy of pixels to learn by, the mean intersection over union in % to rank by.

    A network turns images ``[batch, 3, height, width]`` into logits ``[batch, classes, h, w]``, which are brought to
    the size of the labels. A batch is one of two:

    * images, float32, and label maps, int64 ``[batch, height, width]``;
    * a dict as mmseg has it: ``inputs``, uint8 ``[3, height, width]`` each, in the order blue, green, red, and
      ``data_samples`` with a label map ``gt_sem_seg.data`` ``[1, height, width]`` each. Images are put in the order
      red, green, blue, normalised, and padded to the largest of the batch.

    The mean is over the classes that a label or a prediction of any batch shows.

    Args:
        ignored: the label of pixels that neither train nor count.
        mean: of the values of red, green and blue, from 0 to 255, which mmseg's images are normalised by (ImageNet).
        std: likewise.
    """

    score_name = "mIoU (%)"

    def __init__(
        self,
        ignored: int = 255,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ):
        self.ignored = ignored
        self.mean, self.std = (torch.tensor(each, dtype=torch.float32).view(3, 1, 1) for each in (mean, std))

    def loss(self, network: Network, batch: Any) -> Tensor:
        """The mean over known pixels; 0 where there are none."""
        images, labels = self.read(batch)
        return self._loss_sum(self._logits(network, images, labels), labels) / self._known(labels)

    def score(self, network: Network, batches: Iterable[Any]) -> Judgement:
        """Of all batches' pixels together."""
        each = [self.counts(network, batch) for batch in batches]
        confusion, loss, pixels = (functools.reduce(torch.add, counts) for counts in zip(*each, strict=True))
        return Judgement(mean_iou(confusion), loss / pixels.clamp(min=1))

    def counts(self, network: Network, batch: Any) -> PixelCounts:
        """What a batch adds to the counts from which a score is made."""
        images, labels = self.read(batch)
        logits = self._logits(network, images, labels)
        confusion = confusion_of(logits.argmax(1), labels, logits.shape[1], self.ignored)
        return PixelCounts(confusion, self._loss_sum(logits, labels), (labels != self.ignored).sum())

    def images(self, batch: Any) -> int:
        """How many images a batch has."""
        return len(batch["inputs"]) if isinstance(batch, dict) else super().images(batch)

    def first(self, batch: Any, count: int) -> Any:
        """The first of them and their label maps."""
        return (
            {key: some[:count] for key, some in batch.items()}
            if isinstance(batch, dict)
            else super().first(batch, count)
        )

    def read(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Images ``[batch, 3, height, width]`` and label maps ``[batch, height, width]`` of a batch of either kind."""
        if not isinstance(batch, dict):
            return batch
        pictures, samples = batch["inputs"], batch["data_samples"]
        mean, std = self.mean.to(pictures[0].device), self.std.to(pictures[0].device)
        # Normalised before they are padded, so that the padding is of the mean colour.
        images = _padded([(each.flip(0).float() - mean) / std for each in pictures], 0)
        labels = _padded([each.gt_sem_seg.data.squeeze(0).long() for each in samples], self.ignored)
        return images, labels

    @staticmethod
    def _logits(network: Network, images: Tensor, labels: Tensor) -> Tensor:
        logits = network(images)
        if logits.shape[-2:] == labels.shape[-2:]:
            return logits
        return functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)

    def _loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, ignore_index=self.ignored, reduction="sum")

    def _known(self, labels: Tensor) -> Tensor:
        return (labels != self.ignored).sum().clamp(min=1)


def _padded(maps: Sequence[Tensor], value: float) -> Tensor:
    """Maps ``[..., height, width]`` of several sizes in one tensor, padded at the right and below."""
    height, width = (max(each.shape[axis] for each in maps) for axis in (-2, -1))
    return torch.stack(
        [functional.pad(each, (0, width - each.shape[-1], 0, height - each.shape[-2]), value=value) for each in maps]
    )
