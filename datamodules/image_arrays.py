"""Image data sets small enough for memory, as plain arrays and without Lightning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

_RESIZE_CHUNK = 4096  # images at a time, so that the float32 copy of a large data set never exists as a whole


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """A classification data set, whole and in memory.

    Attributes:
        train_images: uint8 ``[n, height, width, channels]``.
        train_labels: int64 ``[n]``, in ``0 .. classes - 1``.
        val_images: uint8 ``[m, height, width, channels]``.
        val_labels: int64 ``[m]``.
        classes: the name of each class.
        name: what the data set is called in logs and reports.
        test_images: of a third split, by which nothing is chosen, as those of validation; None for no such split.
        test_labels: likewise.

    Raises:
        ValueError: an array has the wrong type or shape, a split is empty, or a label has no class.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray
    classes: tuple[str, ...]
    name: str = "images"
    test_images: np.ndarray | None = None
    test_labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        splits = [("train", self.train_images, self.train_labels), ("val", self.val_images, self.val_labels)]
        if (self.test_images is None) != (self.test_labels is None):
            raise ValueError(f"{self.name}: test images and their labels are needed, or neither")
        if self.test_images is not None and self.test_labels is not None:
            splits.append(("test", self.test_images, self.test_labels))
        for split, images, labels in splits:
            if images.dtype != np.uint8 or images.ndim != 4:
                raise ValueError(
                    f"{self.name}: {split} images are {images.dtype} {list(images.shape)}, "
                    "uint8 [n, height, width, channels] is needed"
                )
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise ValueError(
                    f"{self.name}: {split} labels are {labels.dtype} {list(labels.shape)}, "
                    f"int64 [{len(images)}] is needed"
                )
            if len(images) == 0:
                raise ValueError(f"{self.name}: the {split} split has no images")
            if labels.min() < 0 or labels.max() >= len(self.classes):
                raise ValueError(
                    f"{self.name}: {split} labels run from {labels.min()} to {labels.max()}, "
                    f"with {len(self.classes)} classes 0 to {len(self.classes) - 1} are allowed"
                )
            if self.train_images.shape[1:] != images.shape[1:]:
                raise ValueError(
                    f"{self.name}: train images are {list(self.train_images.shape[1:])}, "
                    f"{split} images {list(images.shape[1:])}; both must have one shape"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for RGB."""
        return self.train_images.shape[3]

    @property
    def resolution(self) -> int:
        """Height of an image in pixels."""
        return self.train_images.shape[1]


def resize(images: np.ndarray, resolution: int) -> np.ndarray:
    """Square images of another size, by bilinear interpolation, antialiased where it shrinks.

    Args:
        images: uint8 ``[n, height, width, channels]``.
        resolution: new height and width, in pixels.

    Returns:
        uint8 ``[n, resolution, resolution, channels]``.
    """
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}, at least 1 pixel is needed")
    if images.shape[1:3] == (resolution, resolution):
        return images
    resized = np.empty((len(images), resolution, resolution, images.shape[3]), dtype=np.uint8)
    for start in range(0, len(images), _RESIZE_CHUNK):
        chunk = torch.from_numpy(images[start : start + _RESIZE_CHUNK]).permute(0, 3, 1, 2).float()
        chunk = functional.interpolate(chunk, size=(resolution, resolution), mode="bilinear", antialias=True)
        chunk = chunk.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        resized[start : start + len(chunk)] = chunk.numpy()
    return resized
