"""Pictures read from disk, a sub-folder a class: ImageNet as it is unpacked, and whatever is laid out alike.

Everything about a batch (order, crop, flip, colours) is a pure function of (seed, epoch, image), whatever the number of
threads, ranks or batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.augmentation import Augmentation, Augmenter
from datamodules.class_folders import Division, divide
from datamodules.epochs import EpochDataModule, check_counts
from datamodules.locations import locations, looked_in
from datamodules.pictures import opened, survey, upright_size
from datamodules.preprocessing import Preprocessing, central_window, cut

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, as torchvision's networks take them."""
_CENTRE = 224 / 256
"""Side of the central square that is validated on, as a share of the shorter side."""
_CURE = (
    "download ILSVRC2012 (image-net.org) and unpack it there with a sub-folder a class below train and val, or name "
    "another folder so laid out"
)


class PictureFiles(Dataset):
    """Batches of normalised images out of files.

    Args:
        files: of the pictures.
        labels: int64 ``[n]``.
        resolution: height and width of the images.
        augment: a random crop of 8 to 100% of the area and a random flip; False for the centre, seven eighths of the
            shorter side.
        color_jitter: the most by which brightness, contrast and saturation change, as a share; hue changes by half of
            it. Only where ``augment``.
        threads: that decode pictures.
        seed: of crops, flips and colours.
        bits: of grey pictures of more than 8 bits, as `datamodules.pictures.survey` counts them.
        augmenter: what is done to them besides; None for nothing.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: np.ndarray,
        resolution: int,
        augment: bool,
        color_jitter: float = 0.0,
        threads: int = 1,
        seed: int = 0,
        bits: int = 16,
        augmenter: Augmenter | None = None,
    ):
        self.files, self.labels = files, torch.from_numpy(labels)
        self.resolution, self.augment, self.color_jitter = resolution, augment, color_jitter
        self.threads, self.seed, self.bits, self.augmenter = threads, seed, bits, augmenter
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentation of an epoch."""
        self.epoch = epoch
        if self.augmenter is not None:
            self.augmenter.epoch = epoch

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch: images float32 ``[batch, 3, resolution, resolution]``; labels int64 ``[batch]``, or soft ones."""
        if self.threads > 1:
            with ThreadPoolExecutor(self.threads) as pool:  # decoding releases the interpreter's lock
                images = list(pool.map(self._read, indices))
        else:
            images = [self._read(index) for index in indices]
        batch, labels = torch.stack(images).sub_(self._mean).div_(self._std), self.labels[list(indices)]
        return (batch, labels) if self.augmenter is None else self.augmenter.batch(batch, labels, indices)

    def _read(self, index: int) -> Tensor:
        """One picture on the scale of 0 to 1."""
        generator = np.random.default_rng((self.seed, self.epoch, index))
        with opened(self.files[index]) as picture:
            width, height = upright_size(picture)
            if self.augment:
                window = _random_window(width, height, generator)
            else:
                window = central_window(width, height, _CENTRE)
            small = cut(picture, window, (self.resolution, self.resolution), self.bits)
        image = torch.from_numpy(np.array(small)).permute(2, 0, 1)
        if self.augment:
            if generator.random() < 0.5:
                image = image.flip(-1)
            if self.color_jitter:
                image = _jitter(image, self.color_jitter, generator)
        if self.augmenter is not None:
            image = self.augmenter.pixels(image, index)
        return image.float().div_(255)


def _random_window(width: int, height: int, generator: np.random.Generator) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge of 8 to 100% of the area, with sides of 3:4 to 4:3 (GoogLeNet's crop)."""
    for _ in range(10):
        area = width * height * generator.uniform(0.08, 1.0)
        ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        across, down = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, upper = generator.integers(width - across + 1), generator.integers(height - down + 1)
            return left, upper, left + across, upper + down
    return central_window(width, height, _CENTRE)


def _jitter(image: Tensor, most: float, generator: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue in a random order, on a uint8 image."""
    from torchvision.transforms import v2

    changes = (
        (v2.functional.adjust_brightness, generator.uniform(max(0.0, 1 - most), 1 + most)),
        (v2.functional.adjust_contrast, generator.uniform(max(0.0, 1 - most), 1 + most)),
        (v2.functional.adjust_saturation, generator.uniform(max(0.0, 1 - most), 1 + most)),
        (v2.functional.adjust_hue, generator.uniform(-most / 2, most / 2)),
    )
    for place in generator.permutation(len(changes)):
        change, amount = changes[place]
        image = change(image, amount)
    return image


class ImageFolderDataModule(EpochDataModule):
    """Image classification from pictures on disk.

    Training images are cropped and mirrored at random as in GoogLeNet's training; of validation images the centre is
    taken.

    Args:
        root: has ``train`` and ``val`` with a sub-folder a class, or directly a sub-folder a class, as
            `datamodules.class_folders.divide` reads it. A relative one is looked for below the current folder, then
            below ``$CATCHMARK_DATA``.
        resolution: height and width of the images.
        batch_size: images a step.
        color_jitter: see `PictureFiles`; 0.4 in the scripts of Landmark Regularization.
        classes: only the first so many classes, in the order of their folders' names; None for all.
        threads: that decode the pictures of a batch.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.
        left_out: pictures that are passed over, by their paths below ``root``.
        augmentation: of training images besides: RandAugment, cutout, erasing, mixup, cutmix; None for none of them.

    Raises:
        ValueError: a number is out of range.
    """

    in_channels = 3

    def __init__(
        self,
        root: str = "imagenet",
        resolution: int = 224,
        batch_size: int = 256,
        color_jitter: float = 0.0,
        classes: int | None = None,
        threads: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        left_out: list[str] | None = None,
        augmentation: Optional[Augmentation] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
    ):
        super().__init__(batch_size, num_workers, seed)
        check_counts(resolution=resolution, threads=threads)
        if not 0 <= color_jitter <= 1:
            raise ValueError(f"color_jitter is {color_jitter}, it must lie in [0, 1]")
        self.root, self.resolution, self.color_jitter = root, resolution, color_jitter
        self.first_classes, self.threads, self.left_out = classes, threads, left_out or []
        self.augmentation = augmentation

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"resolution": 32, "threads": 1}

    @cached_property
    def folder(self) -> Path:
        """Where the pictures are."""
        for folder in locations(self.root):
            if folder.is_dir():
                return folder
        path = Path(self.root).expanduser()
        raise FileNotFoundError(f"no folder '{path}' with train and val{looked_in(path)}; {_CURE}")

    @property
    def classes(self) -> list[str]:
        """The folders' names, in their order."""
        return self._found[0].names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return self.resolution, self.resolution

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def training_set(self, augmented: bool = True) -> PictureFiles:
        """The training images, by index: augmented (`PictureFiles.set_epoch` draws anew), or their centres."""
        return self._pictures(self._found[0].train, augmented)

    def validation_set(self) -> PictureFiles:
        """The centres of the validation images, by index."""
        return self._pictures(self._found[0].val, False)

    @property
    def has_test(self) -> bool:
        """Whether there are test pictures besides those for validation."""
        return any(self._found[0].test)

    def test_set(self) -> PictureFiles:
        """The centres of the test images, by index."""
        return self._pictures(self._found[0].test, False)

    @property
    def preprocessing(self) -> Preprocessing:
        """What validation does to a picture."""
        side = (self.resolution, self.resolution)
        return Preprocessing(
            "RGB", "centre", side, crop=_CENTRE, mean=IMAGENET_MEAN, std=IMAGENET_STD, bits=self._found[1]
        )

    def loader_settings(self) -> dict[str, Any]:
        """Large images travel faster from pinned memory."""
        return {"pin_memory": torch.cuda.is_available()}

    @cached_property
    def _found(self) -> tuple[Division, int]:
        """The pictures, and the bits of deep grey."""
        found = divide(self.folder, self.first_classes, self.left_out)
        self.leaves_out_rest(sum(map(len, found.train)))  # refuses a single image before a search has begun
        return found, survey(found.files)

    def _pictures(self, of_classes: Sequence[list[Path]], augment: bool) -> PictureFiles:
        files = [path for paths in of_classes for path in paths]
        labels = np.repeat(np.arange(len(of_classes), dtype=np.int64), [len(paths) for paths in of_classes])
        return PictureFiles(
            files,
            labels,
            self.resolution,
            augment,
            self.color_jitter,
            self.threads,
            self.seed,
            self._found[1],
            self.augmenter(self.augmentation, self.num_classes) if augment else None,
        )
