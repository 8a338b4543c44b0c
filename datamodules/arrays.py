"""The data module over image data sets small enough for memory.

The networks of a search train in seconds, so fetching images one at a time would cost more than training them does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from os import PathLike
from typing import Optional

import numpy as np

from datamodules.augmentation import Augmentation
from datamodules.batches import ImageBatches
from datamodules.epochs import EpochDataModule
from datamodules.image_arrays import ImageArrays, resize
from datamodules.npz import load_npz
from datamodules.preprocessing import Preprocessing


class ArrayDataModule(EpochDataModule):
    """Image classification out of memory.

    Args:
        arrays: the data set, or an ``.npz`` file that `load_npz` reads on first use; a relative path is looked for
            below the current folder, then below ``$CATCHMARK_DATA``.
        batch_size: images a step. The default is that of NAS-Bench-201.
        flip: whether training images are mirrored at random.
        padding: pixels of black from which training crops are taken; None for an eighth of the resolution, which
            gives the 4 pixels at 32x32 and 2 at 16x16 of NAS-Bench-201.
        mean: of each channel on the scale of 0 to 1; None to measure it on the training images.
        std: of each channel, likewise.
        num_workers: processes that make batches; 0 makes them in the training process, which is fastest for
            small images.
        seed: of order and augmentation; `reseed` changes it.
        resolution: to shrink images to, a divisor of their own; None to take them as they are.
        augmentation: of training images besides: RandAugment, cutout, erasing, mixup, cutmix; None for none of them.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        arrays: ImageArrays | str | PathLike[str],
        batch_size: int = 256,
        flip: bool = True,
        padding: int | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        num_workers: int = 0,
        seed: int = 0,
        resolution: int | None = None,
        augmentation: Optional[Augmentation] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
    ):
        super().__init__(batch_size, num_workers, seed)
        if padding is not None and padding < 0:
            raise ValueError(f"padding is {padding}, 0 or more pixels are allowed")
        self._source = arrays
        self.flip, self.padding = flip, padding
        self.mean, self.std, self.resolution, self.augmentation = mean, std, resolution, augmentation

    @cached_property
    def arrays(self) -> ImageArrays:
        """The data set, loaded on first use."""
        arrays = self.load()
        self.leaves_out_rest(len(arrays.train_images))  # refuses a single image before a search has begun
        if self.resolution in (None, arrays.resolution):
            return arrays
        train, val = (resize(images, self.resolution) for images in (arrays.train_images, arrays.val_images))
        test = None if arrays.test_images is None else resize(arrays.test_images, self.resolution)
        return dataclasses.replace(arrays, train_images=train, val_images=val, test_images=test)

    def load(self) -> ImageArrays:
        """Read the data set; a data set with its own way to be read overrides this."""
        return self._source if isinstance(self._source, ImageArrays) else load_npz(self._source)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.arrays.num_classes

    @property
    def classes(self) -> list[str]:
        """The name of each class, in the order of the labels."""
        return list(self.arrays.classes)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.arrays.in_channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        height, width = self.arrays.train_images.shape[1:3]
        return height, width

    @cached_property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel on the scale of 0 to 1."""
        counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in self._channels()])
        values = np.arange(256) / 255
        mean = counts @ values / counts.sum(axis=1)
        std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1))
        # A channel without contrast is left as it is; nothing is divided by zero.
        measured = mean.tolist(), np.where(std > 0, std, 1.0).tolist()
        for key, given in (("mean", self.mean), ("std", self.std)):
            if given is not None and len(given) != self.in_channels:
                raise ValueError(
                    f"{key} has {len(given)} values, one for each of {self.in_channels} channels is needed"
                )
        return self.mean or measured[0], self.std or measured[1]

    def with_arrays(self, arrays: ImageArrays) -> ArrayDataModule:
        """A data module with the same settings over another data set."""
        return ArrayDataModule(
            arrays,
            self.batch_size,
            self.flip,
            self.padding,
            self.mean,
            self.std,
            self.num_workers,
            self.seed,
            self.resolution,
            self.augmentation,
        )

    def training_set(self, augmented: bool = True) -> ImageBatches:
        """The training images, augmented or as they are."""
        images, labels = self.arrays.train_images, self.arrays.train_labels
        if not augmented:
            return ImageBatches(images, labels, *self.normalisation)
        padding = self.arrays.resolution // 8 if self.padding is None else self.padding
        augmenter = self.augmenter(self.augmentation, self.num_classes)
        return ImageBatches(images, labels, *self.normalisation, padding, self.flip, self.seed, augmenter)

    def validation_set(self) -> ImageBatches:
        """The validation images as they are."""
        return ImageBatches(self.arrays.val_images, self.arrays.val_labels, *self.normalisation)

    @property
    def has_test(self) -> bool:
        """Whether there is a third split."""
        return self.arrays.test_images is not None

    def test_set(self) -> ImageBatches:
        """The test images as they are.

        Raises:
            ValueError: there are none.
        """
        images, labels = self.arrays.test_images, self.arrays.test_labels
        if images is None or labels is None:
            return super().test_set()
        return ImageBatches(images, labels, *self.normalisation)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What makes such an image of a picture: squeezed, as ``catchmark data`` squeezes; None for odd colours.

        The images were sized before they came here, by whatever made them; of pictures that have that size already
        nothing is changed.
        """
        colours = {1: "L", 3: "RGB"}.get(self.in_channels)
        if colours is None:
            return None
        # Shrunk once more with antialiasing, which at one go is the nearest to it.
        resample = "box" if self.resolution is None else "bilinear"
        height, width = self.arrays.train_images.shape[1:3]
        mean, std = (tuple(values) for values in self.normalisation)
        return Preprocessing(colours, "squeeze", (height, width), resample, mean=mean, std=std)

    @property
    def val_batch_size(self) -> int:
        """Images of a validation batch: there are no gradients to hold, so a larger one fits."""
        return max(self.batch_size, 1000)

    def _channels(self) -> Iterator[np.ndarray]:
        for channel in range(self.in_channels):
            yield self.arrays.train_images[..., channel]
