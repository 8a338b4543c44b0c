"""Handwritten digits that come with scikit-learn: a real data set without a download."""

from __future__ import annotations

import functools
from typing import Optional

import numpy as np

from datamodules.arrays import ArrayDataModule
from datamodules.augmentation import Augmentation
from datamodules.image_arrays import ImageArrays, resize


def load_digits_arrays(resolution: int = 8) -> ImageArrays:
    """The 1,797 digits (8x8, 17 shades of grey), a third of each class for validation.

    Within each class every third image, in the order of the data set, is a validation image, so the split is the same
    everywhere and both parts hold every class and every writer.

    Args:
        resolution: height and width in pixels; other than 8, images are resized by bilinear interpolation.
    """
    images, labels = _originals()
    validation = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        validation[np.flatnonzero(labels == digit)[2::3]] = True
    images = resize(images, resolution)
    return ImageArrays(
        images[~validation],
        labels[~validation],
        images[validation],
        labels[validation],
        tuple(str(digit) for digit in range(10)),
        "digits",
    )


@functools.cache  # text, and compressed: every data module of a recipe would parse it again
def _originals() -> tuple[np.ndarray, np.ndarray]:
    """All of them, uint8 ``[1797, 8, 8, 1]``, and their labels, int64 ``[1797]``; to be left as they are."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None], digits.target.astype(np.int64)


class DigitsDataModule(ArrayDataModule):
    """The digits of scikit-learn. They are never mirrored: a mirrored digit is another thing.

    Args:
        resolution: height and width in pixels; the originals have 8.
        batch_size: images a step.
        padding: by how many pixels training images may be shifted; None for an eighth of the resolution.
        num_workers: processes that make batches.
        seed: of order and shifts.
        augmentation: see `ArrayDataModule`.
    """

    def __init__(
        self,
        resolution: int = 8,
        batch_size: int = 128,
        padding: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        augmentation: Optional[Augmentation] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
    ):
        super().__init__(
            "digits",
            batch_size,
            flip=False,
            padding=padding,
            num_workers=num_workers,
            seed=seed,
            augmentation=augmentation,
        )
        self._drawn_at = resolution

    def load(self) -> ImageArrays:
        """The digits at this resolution."""
        return load_digits_arrays(self._drawn_at)
