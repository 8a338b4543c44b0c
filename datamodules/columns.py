"""Columns of a table as numbers for a network: standardised numbers, and a switch for each category."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_modules.spelling import nearest

_MOST_CATEGORIES = 100
"""Different texts in a column beyond which it is taken for a name or a number of its row, not for a category."""


@dataclass(frozen=True, eq=False)
class Columns:
    """A table as it was read.

    Attributes:
        cells: text of each column by its name, a cell a row; an empty one is missing.
        source: what errors call it.
    """

    cells: dict[str, list[str]]
    source: str

    def column(self, name: str, key: str) -> list[str]:
        """The cells of a column.

        Args:
            name: of the column.
            key: that named it, for the error.

        Raises:
            ValueError: there is no such column.
        """
        if name not in self.cells:
            raise ValueError(f"{key}: {self.source} has no column '{name}'{nearest(name, self.cells, 'it has')}")
        return self.cells[name]

    def numbers(self, name: str) -> np.ndarray | None:
        """A column as float64 ``[rows]``, NaN where a cell is empty; None where one is no finite number."""
        try:
            values = np.array([float(cell) if cell else np.nan for cell in self.cells[name]])
        except ValueError:
            return None
        return None if np.isinf(values).any() or np.isnan(values).all() else values


def encode(
    table: Columns, names: Sequence[str], categories: Collection[str], train: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Features of every row, by what the training rows say.

    Numbers are shifted and scaled to mean 0 and standard deviation 1 over the training rows. A missing one becomes 0,
    the mean, and where training rows lack any a switch beside it says so. A category becomes a switch for each that
    training rows have, so that one that only comes up later switches none.

    Args:
        table: the columns.
        names: of those that are features.
        categories: columns of numbers that mean categories.
        train: indices of the training rows.

    Returns:
        float32 ``[rows, features]``, and what each feature is.

    Raises:
        ValueError: a column tells nearly every row from every other.
    """
    features, labels = [], []
    for name in names:
        values = None if name in categories else table.numbers(name)
        if values is not None:
            known = values[train][~np.isnan(values[train])]
            if known.size:
                spread = known.std() if known.std() > 0 else 1.0  # a constant column becomes 0
                features.append(np.nan_to_num((values - known.mean()) / spread, nan=0.0))
                labels.append(name)
            if known.size < len(train):
                features.append(np.isnan(values).astype(np.float64))
                labels.append(f"{name} is missing")
            continue
        cells = np.array(table.cells[name])
        kinds = sorted(set(cells[train].tolist()))
        if len(kinds) > _MOST_CATEGORIES:
            raise ValueError(
                f"{table.source}: column '{name}' has {len(kinds)} different texts in {len(train)} training rows, at "
                f"most {_MOST_CATEGORIES} are taken for categories; name it in left_out"
            )
        features += [(cells == kind).astype(np.float64) for kind in kinds]
        labels += [f"{name} is {kind or 'missing'}" for kind in kinds]
    return np.stack(features, axis=1).astype(np.float32), labels


def divide_rows(count: int, share: float, seed: int, groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate with, drawn by a seed and each in ascending order.

    Args:
        count: of all rows.
        share: of the rows that are for validation.
        seed: of the draw.
        groups: int64 ``[rows]``; the share is that of each group, rounded but at least one row. None for one group.

    Raises:
        ValueError: a group has a single row, or nothing is left to train on.
    """
    rng = np.random.default_rng(seed)
    validation = np.zeros(count, dtype=bool)
    for group in [0] if groups is None else np.unique(groups):
        rows = np.arange(count) if groups is None else np.flatnonzero(groups == group)
        held_out = max(1, round(share * len(rows)))
        if held_out >= len(rows):
            raise ValueError(f"{len(rows)} rows can't be divided: {held_out} for validation leave none to train on")
        validation[rng.permutation(rows)[:held_out]] = True
    return np.flatnonzero(~validation), np.flatnonzero(validation)
