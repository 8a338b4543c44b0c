"""Meta-training tasks out of one data set: random classes at a random resolution (CATCH, sec. 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from search.randomness import TrialRandom, derive_seed
from search.spaces.base import SearchSpace
from search.tasks.base import TaskPool
from search.tasks.image_sizes import check_image_size
from search.tasks.trained import TrainedTask
from search.training.trainer_arguments import TINY_TRAINER

if TYPE_CHECKING:  # jsonargparse resolves these names too, and only when a recipe names this pool
    from pytorch_lightning import LightningModule

    from datamodules.arrays import ArrayDataModule


@dataclass(frozen=True)
class _Draw:
    """What makes up one task of the pool."""

    classes: tuple[int, ...]
    resolution: int


class SubtaskPool(TaskPool):
    """Tasks that train on N classes of a data set, drawn with N and the resolution for each task anew.

    Of CATCH's own values the paper's text names ImageNet resized to 16x16 and 12 epochs.

    Args:
        space: builds the networks.
        data: where classes come from, an `ArrayDataModule`; its batch size, augmentation and workers hold for every
            task.
        classes: the numbers of classes N to draw from, each equally likely.
        resolutions: the image sizes in pixels to draw from, each equally likely.
        epochs: of training a child.
        build: arguments of ``space.build`` besides ``num_classes`` and ``in_channels``.
        module: wraps a network into a Lightning module; None for `ClassificationModule` with its defaults.
        examples_per_class: at most this many images of each class, in training and in validation; None for all.
        score: the logged metric to maximise.
        trainer: further arguments of Lightning's Trainer.
        time_limit_seconds: a child that is still training then has failed; None for no limit.
        threads: of the CPU for a child, as in `TrainedTask`.
        channels_last: how images lie in memory, as in `TrainedTask`.

    Raises:
        ValueError: there is nothing to draw from, a number is out of range, or the data set has fewer classes than are
            to be drawn.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: ArrayDataModule,
        classes: list[int],
        resolutions: list[int],
        epochs: int = 12,
        build: dict[str, Any] | None = None,
        module: Callable[[nn.Module], LightningModule] | None = None,
        examples_per_class: int | None = None,
        score: str = "val_accuracy",
        trainer: dict[str, Any] | None = None,
        time_limit_seconds: float | None = None,
        threads: int | None = None,
        channels_last: bool = False,
    ):
        if not classes or min(classes) < 2:
            raise ValueError(f"classes is {classes}, one or more numbers of at least 2 are needed")
        if not resolutions or min(resolutions) < 1:
            raise ValueError(f"resolutions is {resolutions}, one or more numbers of at least 1 are needed")
        if examples_per_class is not None and examples_per_class < 1:
            raise ValueError(f"examples_per_class is {examples_per_class}, at least 1 is needed")
        self.space, self.data = space, data
        self.classes, self.resolutions = list(classes), list(resolutions)
        self.examples_per_class = examples_per_class
        self.settings: dict[str, Any] = {
            "module": module,
            "epochs": epochs,
            "build": build,
            "score": score,
            "trainer": trainer,
            "time_limit_seconds": time_limit_seconds,
            "threads": threads,
            "channels_last": channels_last,
        }
        self.trainer = trainer or {}
        # The data set is read at once, so that it is refused before a search has begun.
        if max(self.classes) > data.num_classes:
            raise ValueError(f"classes is {self.classes}, but {data.arrays.name} has only {data.num_classes} classes")
        for resolution in set(self.resolutions):
            arguments = {"num_classes": max(self.classes), "in_channels": data.in_channels} | (build or {})
            check_image_size(space, (resolution, resolution), arguments)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Two batches of handwritten digits."""
        return {
            "data": "DigitsDataModule",
            "classes": [2, 3],
            "resolutions": [8],
            "epochs": 1,
            "examples_per_class": 8,
            "threads": 1,
            "trainer": dict(TINY_TRAINER),
        }

    def draw(self, index: int, seed: int) -> TrainedTask:
        """The ``index``-th task of a run with this seed; classes, resolution and images depend on nothing else."""
        from datamodules.subtasks import subset

        drawn = self._draw(index, seed)
        generator = torch.Generator().manual_seed(derive_seed(seed, "subtask images", index))
        arrays = subset(self.data.arrays, drawn.classes, drawn.resolution, self.examples_per_class, generator)
        return TrainedTask(self.space, self.data.with_arrays(arrays), **self.settings)

    def describe(self, index: int, seed: int) -> str:
        """For instance ``5 classes (0, 3, 4, 7, 9) of digits at 8x8``."""
        from datamodules.subtasks import describe

        drawn = self._draw(index, seed)
        return describe(self.data.arrays, drawn.classes, drawn.resolution)

    def _draw(self, index: int, seed: int) -> _Draw:
        rng = TrialRandom(derive_seed(seed, "subtask", index))
        count = self.classes[int(rng.integers(len(self.classes)))]
        resolution = self.resolutions[int(rng.integers(len(self.resolutions)))]
        chosen = rng.permutation(self.data.num_classes)[0, :count].sort().values
        return _Draw(tuple(chosen.tolist()), resolution)
