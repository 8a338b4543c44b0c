"""Pairs of two modalities, such as a picture and a sound of the same class, out of memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.archives import find_archive
from datamodules.epochs import EpochDataModule

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Pairs:
    """One split of a data set of pairs.

    Attributes:
        first: of the first modality, float ``[n, ...]``.
        second: of the second one, float ``[m, ...]``.
        pairs: which belong together, int64 ``[count, 2]``: places in the two.
        labels: of the pairs: int64 ``[count]``, or float ``[count, classes]`` of zeros and ones where a pair may have
            several.

    Raises:
        ValueError: lengths do not fit, or a pair names what is not there.
    """

    first: np.ndarray
    second: np.ndarray
    pairs: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        """Refuse what is no data set."""
        if self.pairs.ndim != 2 or self.pairs.shape[1] != 2 or not len(self.pairs):
            raise ValueError(f"pairs is {list(self.pairs.shape)}, [count, 2] is needed, with at least one")
        if len(self.labels) != len(self.pairs):
            raise ValueError(f"there are {len(self.labels)} labels of {len(self.pairs)} pairs")
        highest = self.pairs.max(axis=0)
        if self.pairs.min() < 0 or highest[0] >= len(self.first) or highest[1] >= len(self.second):
            sizes = f"{len(self.first)} and {len(self.second)}"
            raise ValueError(f"a pair names {highest.tolist()}, there are {sizes} (numbered from 0)")


def pair_by_label(first: np.ndarray, second: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of the same class, the classes as evenly as can be.

    Args:
        first: labels of the first modality, whole numbers ``[n]``.
        second: of the second one.
        count: pairs.
        seed: of the draw.

    Returns:
        Places in the two, int64 ``[count, 2]``, and the labels, int64 ``[count]``.

    Raises:
        ValueError: no class is in both.
    """
    classes = np.intersect1d(first, second)
    if not len(classes):
        raise ValueError("pairs: no class is in both modalities")
    rng = np.random.default_rng(seed)
    labels = np.resize(rng.permutation(classes), count).astype(np.int64)
    pairs = np.zeros((count, 2), dtype=np.int64)
    for side, own in enumerate((first, second)):
        for label in classes:
            wanted, known = labels == label, np.flatnonzero(own == label)
            rounds = -(-int(wanted.sum()) // len(known))  # each comes once before any comes again
            pairs[wanted, side] = np.concatenate([[], *(rng.permutation(known) for _ in range(rounds))])[: wanted.sum()]
    return pairs, labels


class PairBatches(Dataset):
    """Batches of pairs out of memory.

    Args:
        pairs: the split.
    """

    def __init__(self, pairs: Pairs):
        self.first, self.second = (torch.from_numpy(np.ascontiguousarray(each)) for each in (pairs.first, pairs.second))
        self.pairs, self.labels = torch.from_numpy(pairs.pairs), torch.from_numpy(pairs.labels)

    def set_epoch(self, epoch: int) -> None:
        """Every epoch has the same pairs."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        (first, second), labels = self.__getitems__([index])
        return (first[0], second[0]), labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """A whole batch: the two modalities, float32 ``[batch, ...]`` each, and the labels."""
        index = torch.tensor(indices)
        one, other = self.pairs[index].unbind(1)
        return (self.first[one].float(), self.second[other].float()), self.labels[index]


class PairsDataModule(EpochDataModule):
    """Classification of pairs: tables that a user brings, or what a class of its own gives.

    Args:
        pairs: an ``.npz`` file; a relative path is looked for below the current folder, then below
            ``$CATCHMARK_DATA``. For ``train`` and ``val``, and ``test`` where there is one, it has ``first_train``
            ``[n, ...]``, ``second_train`` ``[m, ...]`` and ``y_train``: whole numbers ``[n]``, or zeros and ones
            ``[n, classes]`` where a pair may have several labels. Rows of one place belong together, unless there is a
            table ``pairs_train``, whole numbers ``[count, 2]``, whose labels ``y_train`` then are.
        batch_size: pairs a step; 20 is that of MFAS's code.
        num_workers: processes that make batches.
        seed: of the order.

    Raises:
        ValueError: a number is out of range.
    """

    in_channels = 1

    def __init__(self, pairs: str | PathLike[str], batch_size: int = 20, num_workers: int = 0, seed: int = 0):
        super().__init__(batch_size, num_workers, seed)
        self._source = pairs

    @cached_property
    def splits(self) -> Mapping[str, Pairs]:
        """``train``, ``val`` and perhaps ``test``, read on first use."""
        return self.load()

    def load(self) -> Mapping[str, Pairs]:
        """Read the splits; a data set with its own way overrides this."""
        return load_pairs(self._source)

    @cached_property
    def num_classes(self) -> int:
        """Number of classes."""
        labels = [split.labels for split in self.splits.values()]
        return labels[0].shape[1] if labels[0].ndim == 2 else 1 + max(int(each.max()) for each in labels)

    def training_set(self, augmented: bool = True) -> PairBatches:
        """The training pairs, as they are."""
        return PairBatches(self.splits["train"])

    def validation_set(self) -> PairBatches:
        """The validation pairs."""
        return PairBatches(self.splits["val"])

    @property
    def val_batch_size(self) -> int:
        """There are no gradients to hold, so a larger batch fits."""
        return max(self.batch_size, 1000)

    @property
    def has_test(self) -> bool:
        """Whether there are test pairs."""
        return "test" in self.splits

    def test_set(self) -> PairBatches:
        """The test pairs.

        Raises:
            ValueError: there are none.
        """
        if not self.has_test:
            raise ValueError("the data have no test pairs")
        return PairBatches(self.splits["test"])


def load_pairs(path: str | PathLike[str]) -> dict[str, Pairs]:
    """The splits of an archive, as `PairsDataModule` describes it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an array is missing, or they do not fit.
    """
    cure = "it has to be made from the data set; docs/methods/mfas.md says which arrays it holds"
    found = find_archive(path, "data: no table of pairs", cure)
    splits = {}
    with np.load(found, allow_pickle=False) as archive:
        for split in SPLITS:
            names = {kind: f"{kind}_{split}" for kind in ("first", "second", "y")}
            missing = [name for name in names.values() if name not in archive.files]
            if split == "test" and len(missing) == len(names):
                continue
            if missing:
                raise ValueError(f"data: '{found}' has no array '{missing[0]}', only {', '.join(archive.files)}")
            first, second, labels = (archive[name] for name in names.values())
            table = f"pairs_{split}"
            rows = np.stack([np.arange(len(labels))] * 2, axis=1)
            pairs = archive[table].astype(np.int64) if table in archive.files else rows
            kind = np.float32 if labels.ndim == 2 else np.int64
            splits[split] = Pairs(first, second, pairs, labels.astype(kind))
    return splits
