"""Rows of a table, for classification or regression."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.columns import Columns, divide_rows, encode
from datamodules.epochs import EpochDataModule


class Rows(Dataset):
    """Batches of rows.

    Args:
        features: float32 ``[rows, features]``.
        targets: int64 or float32 ``[rows]``.
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray):
        self.features, self.targets = torch.from_numpy(features), torch.from_numpy(targets)

    def set_epoch(self, epoch: int) -> None:
        """Nothing about a row changes from epoch to epoch."""

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.features[index], self.targets[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch: features float32 ``[batch, features]``, targets ``[batch]``."""
        index = torch.tensor(indices)
        return self.features[index], self.targets[index]


class _Encoded(NamedTuple):
    """The table as numbers."""

    train: Rows
    val: Rows
    features: list[str]
    classes: list[str]
    mean: float
    scale: float


class TableDataModule(EpochDataModule):
    """A table, a row an example; a data set says in `columns` what is in it.

    Rows for validation are drawn by ``split_seed``, of each class the same share. Features are encoded by what the
    training rows say (`datamodules.columns.encode`); targets of a regression are shifted and scaled likewise, and
    `target_mean` and `target_scale` lead back.

    Args:
        target: the column that is to be predicted.
        task: ``classification`` or ``regression``.
        left_out: columns that are neither.
        categories: columns of numbers that mean categories, as codes do; those of text are categories anyway.
        val_share: share of the rows that are for validation.
        split_seed: of the draw of these.
        batch_size: rows a step.
        num_workers: processes that make batches.
        seed: of the order; `reseed` changes it.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        target: str,
        task: Literal["classification", "regression"] = "classification",
        left_out: list[str] | None = None,
        categories: list[str] | None = None,
        val_share: float = 0.2,
        split_seed: int = 0,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, num_workers, seed)
        if task not in ("classification", "regression"):
            raise ValueError(f"task is '{task}', allowed: classification, regression")
        if not 0 < val_share < 1:
            raise ValueError(f"val_share is {val_share}, a share above 0 and below 1 is needed")
        if split_seed < 0:
            raise ValueError(f"split_seed is {split_seed}, 0 or more is needed")
        self.target, self.task, self.val_share, self.split_seed = target, task, val_share, split_seed
        self.left_out, self.categories = left_out or [], categories or []

    @abstractmethod
    def columns(self) -> Columns:
        """Read the table."""

    @property
    def in_channels(self) -> int:
        """Numbers that a network reads of a row."""
        return len(self.features)

    @property
    def num_classes(self) -> int:
        """Numbers that a network gives: one a class, or one in all for a regression."""
        return len(self._encoded.classes) or 1

    @property
    def features(self) -> list[str]:
        """What each number of a row is."""
        return self._encoded.features

    @property
    def classes(self) -> list[str]:
        """The name of each class, in the order of the labels; none in a regression."""
        return self._encoded.classes

    @property
    def target_mean(self) -> float:
        """Mean of the training targets of a regression, to which a prediction times `target_scale` is added."""
        return self._encoded.mean

    @property
    def target_scale(self) -> float:
        """Standard deviation of the training targets of a regression, in their own unit."""
        return self._encoded.scale

    def training_set(self, augmented: bool = True) -> Rows:
        """The training rows."""
        return self._encoded.train

    def validation_set(self) -> Rows:
        """The validation rows."""
        return self._encoded.val

    @property
    def val_batch_size(self) -> int:
        """Rows of a validation batch: there are no gradients to hold, so a larger one fits."""
        return max(self.batch_size, 4096)

    @cached_property
    def _encoded(self) -> _Encoded:
        table = self.columns()
        cells = table.column(self.target, "target")
        for key, names in (("left_out", self.left_out), ("categories", self.categories)):
            for name in names:
                table.column(name, key)
        empty = next((row for row, cell in enumerate(cells, start=1) if not cell), None)
        if empty is not None:
            raise ValueError(f"{table.source}: row {empty} has no '{self.target}', which is to be predicted")
        names = [name for name in table.cells if name != self.target and name not in self.left_out]
        if not names:
            raise ValueError(f"{table.source} has no column beside '{self.target}' that could predict it")
        classes, mean, scale = list[str](), 0.0, 1.0
        if self.task == "classification":
            classes, targets = _labels(table, self.target)
            train, val = divide_rows(len(cells), self.val_share, self.split_seed, targets)
        else:
            values = table.numbers(self.target)
            if values is None:
                raise ValueError(f"{table.source}: '{self.target}' is not all numbers, which a regression predicts")
            train, val = divide_rows(len(cells), self.val_share, self.split_seed)
            mean, scale = float(values[train].mean()), float(values[train].std())
            if not scale > 0 or not values[val].std() > 0:
                raise ValueError(
                    f"{table.source}: '{self.target}' is the same in every row, there is nothing to predict"
                )
            targets = ((values - mean) / scale).astype(np.float32)
        features, labels = encode(table, names, self.categories, train)
        self.leaves_out_rest(len(train))  # refuses a single row before a search has begun
        parts = (Rows(features[rows], targets[rows]) for rows in (train, val))
        return _Encoded(next(parts), next(parts), labels, classes, mean, scale)


def _labels(table: Columns, target: str) -> tuple[list[str], np.ndarray]:
    """The classes, numbers in their order and before text in its own, and int64 ``[rows]``.

    Raises:
        ValueError: there is one class, or one has a single row.
    """
    cells = table.cells[target]
    kinds = set(cells)
    classes = sorted(kinds, key=float) if table.numbers(target) is not None else sorted(kinds)
    if len(classes) < 2:
        raise ValueError(f"{table.source}: '{target}' is '{classes[0]}' in every row, there is nothing to tell apart")
    places = {name: label for label, name in enumerate(classes)}
    labels = np.array([places[cell] for cell in cells], dtype=np.int64)
    counts = np.bincount(labels)
    if counts.min() < 2:
        alone = classes[int(counts.argmin())]
        cure = "; for a number that is to be predicted, say task: regression" if len(classes) > len(cells) // 2 else ""
        raise ValueError(f"{table.source}: class '{alone}' of '{target}' has a single row, two are needed{cure}")
    return classes, labels
