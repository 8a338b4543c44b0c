"""Image data sets small enough for memory, and the data module over them.

The networks of a search train in seconds, so fetching images one at a time would cost more than training them does.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.nn import functional
from torch.utils.data import DataLoader

from datamodules.batches import EpochLoader, EpochShuffle, ImageBatches, generator_of, whole

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

    Raises:
        ValueError: an array has the wrong type or shape, a split is empty, or a label has no class.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray
    classes: tuple[str, ...]
    name: str = "images"

    def __post_init__(self) -> None:
        for split, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("val", self.val_images, self.val_labels),
        ):
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
        if self.train_images.shape[1:] != self.val_images.shape[1:]:
            raise ValueError(
                f"{self.name}: train images are {list(self.train_images.shape[1:])}, "
                f"val images {list(self.val_images.shape[1:])}; both must have one shape"
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


def load_npz(path: str | PathLike[str]) -> ImageArrays:
    """A data set from a NumPy archive in the customary layout.

    Args:
        path: an ``.npz`` file with ``x_train``, ``y_train`` and ``x_val``, ``y_val`` (or ``x_test``, ``y_test``; where
            both are there, ``val`` is used). Images are uint8 ``[n, height, width, channels]`` or, grey,
            ``[n, height, width]``; labels are whole numbers ``[n]`` or ``[n, 1]``. ``classes``, an array of strings,
            is optional.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such an archive.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"data: no file '{path}'")
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"data: '{path}' is not a NumPy .npz archive") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"data: '{path}' holds a single array, an .npz archive is needed")
    with archive:
        split = "val" if "x_val" in archive.files or "y_val" in archive.files else "test"
        images, labels = {}, {}
        for part in ("train", split):
            images[part] = _read(archive, path, f"x_{part}")
            if images[part].ndim == 3:
                images[part] = images[part][..., None]
            raw = _read(archive, path, f"y_{part}")
            if raw.dtype.kind not in "iu":
                raise ValueError(f"data: 'y_{part}' of '{path}' is {raw.dtype}, whole numbers are needed")
            labels[part] = raw.reshape(len(raw)).astype(np.int64) if raw.size == len(raw) else raw.astype(np.int64)
        if "classes" in archive.files:
            classes = tuple(str(name) for name in _read(archive, path, "classes"))
        else:
            highest = max(int(part.max(initial=-1)) for part in labels.values())
            classes = tuple(str(label) for label in range(highest + 1))
    return ImageArrays(images["train"], labels["train"], images[split], labels[split], classes, path.stem)


def _read(archive: Any, path: Path, key: str) -> np.ndarray:
    """One array of an archive, or a clear error."""
    if key not in archive.files:
        near = get_close_matches(key, archive.files, n=1)
        hint = f"; did you mean '{near[0]}'? Rename it" if near else ""
        raise ValueError(f"data: '{path}' has no array '{key}', only {', '.join(archive.files) or 'none at all'}{hint}")
    try:
        return archive[key]
    except ValueError as error:
        raise ValueError(
            f"data: array '{key}' of '{path}' holds Python objects, which are not loaded; save it as plain numbers"
        ) from error


class ArrayDataModule(LightningDataModule):
    """Image classification out of memory.

    Args:
        arrays: the data set, or the path of an ``.npz`` file that `load_npz` reads on first use.
        batch_size: images a step. The default is that of NAS-Bench-201.
        flip: whether training images are mirrored at random.
        padding: pixels of black from which training crops are taken; None for an eighth of the resolution, which
            gives the 4 pixels at 32x32 and 2 at 16x16 of NAS-Bench-201.
        mean: of each channel on the scale of 0 to 1; None to measure it on the training images.
        std: of each channel, likewise.
        num_workers: processes that make batches; 0 makes them in the training process, which is fastest for
            small images.
        seed: of order and augmentation; `reseed` changes it.
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
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, at least 1 is needed")
        if padding is not None and padding < 0:
            raise ValueError(f"padding is {padding}, 0 or more pixels are allowed")
        self._source = arrays
        self.batch_size, self.flip, self.padding = batch_size, flip, padding
        self.mean, self.std, self.num_workers = mean, std, num_workers
        self.reseed(seed)

    @cached_property
    def arrays(self) -> ImageArrays:
        """The data set, loaded on first use."""
        return self.load()

    def load(self) -> ImageArrays:
        """Read the data set; a data set with its own way to be read overrides this."""
        return self._source if isinstance(self._source, ImageArrays) else load_npz(self._source)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.arrays.num_classes

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.arrays.in_channels

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

    def reseed(self, seed: int) -> None:
        """Set the seed of order and augmentation, from the next data loader on."""
        if seed < 0:
            raise ValueError(f"seed is {seed}, 0 or more is needed")
        self.seed = seed

    def with_arrays(self, arrays: ImageArrays) -> ArrayDataModule:
        """A data module with the same settings over another data set."""
        return ArrayDataModule(
            arrays, self.batch_size, self.flip, self.padding, self.mean, self.std, self.num_workers, self.seed
        )

    def train_dataloader(self) -> EpochLoader:
        """Shuffled and augmented batches: float32 ``[batch, channels, height, width]``, int64 ``[batch]``."""
        padding = self.arrays.resolution // 8 if self.padding is None else self.padding
        batches = ImageBatches(
            self.arrays.train_images, self.arrays.train_labels, *self.normalisation, padding, self.flip, self.seed
        )
        return EpochLoader(
            batches,
            batch_size=self.batch_size,
            sampler=EpochShuffle(batches, self.seed),
            num_workers=self.num_workers,
            collate_fn=whole,
            # The loader draws a base seed for its workers; without this it would draw it from the global state.
            generator=generator_of(self.seed, 2),
        )

    def val_dataloader(self) -> DataLoader:
        """Validation batches in order, as they are."""
        batches = ImageBatches(self.arrays.val_images, self.arrays.val_labels, *self.normalisation)
        return DataLoader(
            batches,
            batch_size=max(self.batch_size, 1000),  # no gradients to hold, so a larger batch fits
            num_workers=self.num_workers,
            collate_fn=whole,
            generator=generator_of(self.seed, 3),
        )

    def _channels(self) -> Iterator[np.ndarray]:
        for channel in range(self.in_channels):
            yield self.arrays.train_images[..., channel]
