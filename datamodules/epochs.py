"""What every data module here has in common: a seed, shuffled batches for training, batches in order for validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.augmentation import Augmentation, Augmenter
from datamodules.batches import EpochLoader, EpochShuffle, generator_of, whole


class EpochDataModule(LightningDataModule, ABC):
    """Batches that are a pure function of (seed, epoch, image), out of data sets that make whole batches.

    Args:
        batch_size: images a step.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, batch_size: int, num_workers: int = 0, seed: int = 0):
        super().__init__()
        check_counts(batch_size=batch_size)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Set the seed of order and augmentation, from the next data loader on."""
        if seed < 0:
            raise ValueError(f"seed is {seed}, 0 or more is needed")
        self.seed = seed

    @abstractmethod
    def training_set(self, augmented: bool = True) -> Any:
        """The training images, by index: augmented (``set_epoch`` draws anew), or as they are."""

    @abstractmethod
    def validation_set(self) -> Any:
        """The validation images, by index."""

    @property
    def has_test(self) -> bool:
        """Whether there are test images, by which nothing is chosen."""
        return type(self).test_dataloader is not EpochDataModule.test_dataloader

    def test_set(self) -> Any:
        """The test images, by index.

        Raises:
            ValueError: there are none.
        """
        raise ValueError("the data have no test images")

    @property
    def val_batch_size(self) -> int:
        """Images of a validation batch."""
        return self.batch_size

    def loader_settings(self) -> dict[str, Any]:
        """Further arguments of both loaders."""
        return {}

    def augmenter(self, augmentation: Augmentation | None, classes: int) -> Augmenter | None:
        """What augments the images of a training set; None for nothing."""
        return None if augmentation is None else Augmenter(augmentation, classes, self.seed)

    def leaves_out_rest(self, images: int) -> bool:
        """Whether an epoch of so many images leaves out those that do not fill a batch.

        A single one is left out, for a network cannot normalise over a batch of one, unless ``batch_size`` is 1.

        Raises:
            ValueError: there is no other image.
        """
        alone = self.batch_size > 1 and images % self.batch_size == 1
        if alone and images == 1:
            raise ValueError(
                "there is 1 training image, and a network cannot normalise over a batch of one; give more images, or "
                "batch_size 1"
            )
        return alone

    def train_dataloader(self) -> EpochLoader:
        """Shuffled and augmented batches of `training_set`."""
        samples = self.training_set()
        order = EpochShuffle(samples, self.seed)
        return EpochLoader(
            samples,
            batch_size=self.batch_size,
            sampler=order,
            num_workers=self.num_workers,
            collate_fn=whole,
            drop_last=self.leaves_out_rest(len(order)),  # of this rank
            # The loader draws a base seed for its workers; without this it would draw it from the global state.
            generator=generator_of(self.seed, 2),
            **self.loader_settings(),
        )

    def val_dataloader(self) -> DataLoader:
        """Batches of `validation_set` in order."""
        return self._in_order(self.validation_set(), 3)

    def test_dataloader(self) -> DataLoader:
        """Batches of `test_set` in order.

        Raises:
            ValueError: there are no test images.
        """
        return self._in_order(self.test_set(), 4)

    def _in_order(self, images: Any, stream: int) -> DataLoader:
        return DataLoader(
            images,
            batch_size=self.val_batch_size,
            num_workers=self.num_workers,
            collate_fn=whole,
            generator=generator_of(self.seed, stream),
            **self.loader_settings(),
        )


def check_counts(**numbers: int | None) -> None:
    """Refuse numbers, given by name, that are below 1; None stands for all there is.

    Raises:
        ValueError: one is.
    """
    for key, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{key} is {number}, at least 1 is needed")
