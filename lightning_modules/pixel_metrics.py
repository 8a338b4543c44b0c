"""How well every pixel is labelled: means over classes out of one table of pixels by label and prediction."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.objectives.segmentation import confusion_of


class PixelTable(Metric):
    """Pixels by label and by prediction, over all images of an epoch and of all ranks.

    Args:
        classes: how many.
        ignored: the label of pixels that do not count.
        background: the class that means of classes leave out; None for none.
    """

    full_state_update = False
    table: Tensor

    def __init__(self, classes: int, ignored: int = 255, background: int | None = None):
        super().__init__()
        self.classes, self.ignored, self.background = classes, ignored, background
        self.add_state("table", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, found: Tensor, labels: Tensor) -> None:
        """Add predicted classes and labels, int64 ``[...]`` both."""
        self.table += confusion_of(found, labels, self.classes, self.ignored)

    def compute(self) -> dict[str, Tensor]:
        """``miou``, ``class_accuracy``, ``frequency_weighted_iou``, ``pixel_accuracy`` and ``reward``, in %.

        Means are over the classes that a label shows, less the background. Weights are the shares of their labels.
        ``reward`` is the geometric mean of the first three (FastDenseNAS, Nekrasov et al. 2019).
        """
        table = self.table.double()
        hits, labelled = table.diagonal(), table.sum(1)
        there = labelled > 0
        if self.background is not None:
            there[self.background] = False
        if not there.any():
            return {name: torch.tensor(0.0, device=table.device) for name in NAMES}
        iou = (hits / (labelled + table.sum(0) - hits))[there]
        accuracy = (hits / labelled)[there]
        weights = labelled[there] / labelled[there].sum()
        means = [iou.mean(), accuracy.mean(), (weights * iou).sum()]
        reward = torch.stack(means).prod() ** (1 / 3)
        values = [*means, hits.sum() / table.sum(), reward]
        return {name: (100 * value).float() for name, value in zip(NAMES, values, strict=True)}


NAMES = ("miou", "class_accuracy", "frequency_weighted_iou", "pixel_accuracy", "reward")
