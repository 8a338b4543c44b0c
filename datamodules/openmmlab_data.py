"""What the data modules of detection and segmentation share: samples as mmdet and mmseg make them.

A sample is a pure function of (seed, epoch, index), whatever the number of workers, ranks or batches: the libraries'
transforms draw from global random states, which are seeded for each sample and put back after it. The libraries load
slowly, so they are imported where they are used.
"""

from __future__ import annotations

import contextlib
import copy
import random
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datamodules.epochs import EpochDataModule, check_counts
from datamodules.locations import locations, looked_in
from datamodules.preprocessing import Preprocessing

Record = dict[str, Any]
"""What a transform takes and gives: the library's ``results``."""
Transform = Callable[[Record], Record | None]
Batch = dict[str, list[Any]]
"""``inputs``, uint8 ``[3, height, width]`` each, in the order blue, green, red; and their ``data_samples``."""
Split = Literal["train", "val"]
_SHOWN = 6  # names in a message


class Records(Protocol):
    """Descriptions of samples, as every data set of mmengine gives them."""

    def __len__(self) -> int: ...

    def get_data_info(self, idx: int) -> Record:
        """The description of a sample, which the caller may change."""
        ...


class LoadedRecords:
    """Records after the part of a pipeline in which nothing is random.

    Args:
        records: the descriptions.
        loading: what reads and decodes the files.
        cache_bytes: where the images take up less than this together they are decoded once and kept.
    """

    def __init__(self, records: Records, loading: Sequence[Transform], cache_bytes: int = 0):
        self.records, self.loading = records, loading
        self._kept: list[Record] | None = None
        first = self._load(0)
        if sum(value.nbytes for value in first.values() if isinstance(value, np.ndarray)) * len(records) <= cache_bytes:
            # All at once, before workers are forked: what a worker decodes is lost with it.
            rest = tqdm(range(1, len(records)), desc="images", unit=" images", leave=False, disable=None)
            self._kept = [first, *(self._load(index) for index in rest)]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        # A copy, for transforms write into what they are given.
        return self._load(index) if self._kept is None else copy.deepcopy(self._kept[index])

    def _load(self, index: int) -> Record:
        return _apply(self.loading, self.records.get_data_info(index))


class Samples(Dataset):
    """Batches as mmengine's ``pseudo_collate`` makes them.

    Args:
        loaded: the records.
        transforms: the rest of the pipeline, which may draw from the random states of NumPy and Python.
        seed: of all that is drawn.
    """

    def __init__(self, loaded: LoadedRecords, transforms: Sequence[Transform], seed: int = 0):
        self.loaded, self.transforms, self.seed, self.epoch = loaded, transforms, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentation of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.loaded)

    def __getitem__(self, index: int) -> Record:
        with _random_states(self.seed, self.epoch, index, 1):
            return _apply(self.transforms, self.loaded[index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch."""
        samples = [self[index] for index in indices]
        return {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}


class OpenMMLabDataModule(EpochDataModule):
    """Data for a network that mmdet or mmseg trains.

    Training batches are shuffled and augmented; the rest of images that does not fill a batch is left out of an epoch,
    for a network cannot normalise over a batch of one. Normalisation and padding are left to the network's own data
    preprocessor.

    Args:
        batch_size: images a step.
        images: only the first so many training images; None for all.
        val_images: likewise of the validation images.
        val_split: ``train`` to validate on the training images, which shows what a network can learn by heart.
        cache_megabytes: images of a split that take up less memory are decoded once and kept.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.

    Raises:
        ValueError: a number is out of range.
    """

    in_channels = 3

    def __init__(
        self,
        batch_size: int,
        images: int | None = None,
        val_images: int | None = None,
        val_split: Split = "val",
        cache_megabytes: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, num_workers, seed)
        check_counts(images=images, val_images=val_images)
        if val_split not in ("train", "val"):
            raise ValueError(f"val_split is '{val_split}', allowed: train, val")
        self.images, self.val_images, self.val_split = images, val_images, val_split
        self.cache_megabytes = cache_megabytes

    # ---- what a data set must say ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def metainfo(self) -> dict[str, Any]:
        """The names of the ``classes``, and a ``palette`` with red, green and blue of each."""

    @abstractmethod
    def load_records(self, split: Split, most: int | None) -> Records:
        """The first records of a split; called once each."""

    @abstractmethod
    def transforms(self, augmented: bool) -> tuple[list[Transform], list[Transform]]:
        """The pipeline in two parts: what reads and decodes files, in which nothing is random, and the rest."""

    @abstractmethod
    def val_metrics(self) -> list[Any]:
        """Fresh metrics of the library, as an ``mmengine.evaluator.Evaluator`` takes them, for the validation set."""

    # ---- what follows from it --------------------------------------------------------------------------------------

    def test_metrics(self) -> list[Any]:
        """The same for the test set."""
        return self.val_metrics()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def classes(self) -> list[str]:
        """The name of each class, in the order of the labels."""
        return list(self.metainfo["classes"])

    @cached_property
    def train_records(self) -> Records:
        """The training records, looked for on first use."""
        return _not_empty(self.load_records("train", self.images), "training")

    @cached_property
    def val_records(self) -> Records:
        """The validation records, looked for on first use."""
        if self.val_split == "val":
            return _not_empty(self.load_records("val", self.val_images), "validation")
        if self.val_images is None or self.val_images >= len(self.train_records):
            return self.train_records
        return self.load_records("train", self.val_images)

    def training_set(self, augmented: bool = True) -> Samples:
        """The training images, by index: augmented (`Samples.set_epoch` draws anew), or as validation takes them."""
        return Samples(self._augmented if augmented else self._plain, self.transforms(augmented)[1], self.seed)

    def validation_set(self) -> Samples:
        """The validation images, by index."""
        return Samples(self._validation, self.transforms(augmented=False)[1])

    def loader_settings(self) -> dict[str, Any]:
        """What workers need."""
        return {"worker_init_fn": _single_threaded}

    def leaves_out_rest(self, images: int) -> bool:
        """Wherever there is a full batch, for a network cannot normalise over a batch of one."""
        return images >= self.batch_size

    @property
    def has_test(self) -> bool:
        """Whether there are test images besides those for validation."""
        return False

    def test_dataloader(self) -> DataLoader:
        """Test images where there are any; else as in validation, for what a module computes in testing alone."""
        return super().test_dataloader() if self.has_test else self.val_dataloader()

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What validation does to a picture, less the normalisation, which is the network's; None if nobody says."""
        sides = getattr(self, "resolution", None)
        return None if sides is None else Preprocessing("BGR", "fit", (int(sides[0]), int(sides[1])))

    @cached_property
    def _augmented(self) -> LoadedRecords:
        return self._load(self.train_records, augmented=True)

    @cached_property
    def _plain(self) -> LoadedRecords:
        return self._load(self.train_records, augmented=False)

    @cached_property
    def _validation(self) -> LoadedRecords:
        return self._load(self.val_records, augmented=False)

    def _load(self, records: Records, augmented: bool) -> LoadedRecords:
        return LoadedRecords(records, self.transforms(augmented)[0], self.cache_megabytes * 2**20)


def find_folder(root: str, needed: Sequence[str], absent: str, cure: str) -> Path:
    """Where a data set lies: below the current folder, else below ``$CATCHMARK_DATA``; absolute paths stay as they are.

    Args:
        root: the folder.
        needed: files and folders that must be in it.
        absent: opens the message where there is no such folder, for instance ``no COCO data set``.
        cure: closes it: what to download, and how to lay it out.

    Raises:
        FileNotFoundError: it is in neither; the message names what is missing where the folder itself is there.
    """
    found = None
    for folder in locations(root):
        missing = [name for name in needed if not (folder / name).exists()]
        if folder.is_dir() and not missing:
            return folder
        if folder.is_dir() and found is None:
            found = f"{absent} in '{folder}', which lacks {', '.join(missing)}; {cure}"
    raise FileNotFoundError(found or f"{absent} '{Path(root).expanduser()}'{looked_in(root)}; {cure}")


def say(text: str) -> None:
    """Warn in one line: below a plain warning Python shows the line of code that gave it."""
    warnings.warn_explicit(text, UserWarning, "data", 0)


def listed(names: Sequence[str]) -> str:
    """Names for a message, of many only the first."""
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} others"


def check_flip(flip: float) -> float:
    """The probability of a mirror image, if it is one.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= flip <= 1:
        raise ValueError(f"flip is {flip}, a probability from 0 to 1 is needed")
    return flip


def _apply(transforms: Sequence[Transform], record: Record) -> Record:
    for transform in transforms:
        result = transform(record)
        if result is None:
            raise ValueError(f"{type(transform).__name__} gives nothing for {record.get('img_path', 'an image')}")
        record = result
    return record


def _not_empty(records: Records, split: str) -> Records:
    if not len(records):
        raise ValueError(f"the data set has no {split} images")
    return records


@contextlib.contextmanager
def _random_states(*parts: int) -> Iterator[None]:
    """Global random states of their own for each tuple of non-negative numbers, then those of before again."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - transforms draw from it
    words = np.random.SeedSequence(parts).generate_state(4)
    try:
        np.random.seed(words)  # noqa: NPY002
        random.seed(words.tobytes())
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _single_threaded(worker: int) -> None:
    """OpenCV's threads do not survive the fork that a worker comes from, and workers are parallel enough."""
    import cv2

    cv2.setNumThreads(0)
