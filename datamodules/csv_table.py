"""A table in a text file, its columns divided by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from datamodules.archives import find_archive
from datamodules.columns import Columns
from datamodules.tables import TableDataModule

_DELIMITERS = ",;\t|"
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""What stands in a cell that holds nothing, in capitals or not."""


class CsvDataModule(TableDataModule):
    """A table from a CSV file, for classification or regression.

    The first line names the columns. A column whose cells are all numbers is one of numbers, any other one of
    categories; cells that are empty, ``NA``, ``NaN``, ``null``, ``none`` or ``?`` are missing.

    Args:
        file: UTF-8 text; a relative path is looked for below the current folder, then below ``$CATCHMARK_DATA``.
        target: the column that is to be predicted.
        task: ``classification`` or ``regression``.
        left_out: columns that are neither, such as a number of the row.
        categories: columns of numbers that mean categories, as codes do.
        val_share: share of the rows that are for validation, of each class the same.
        split_seed: of the draw of these.
        delimiter: what divides the columns; None for whichever of ``, ; tab |`` the first line has most of.
        batch_size: rows a step.
        num_workers: processes that make batches.
        seed: of the order; `reseed` changes it.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        file: str,
        target: str,
        task: Literal["classification", "regression"] = "classification",
        left_out: list[str] | None = None,
        categories: list[str] | None = None,
        val_share: float = 0.2,
        split_seed: int = 0,
        delimiter: str | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(target, task, left_out, categories, val_share, split_seed, batch_size, num_workers, seed)
        if delimiter is not None and len(delimiter) != 1:
            raise ValueError(f"delimiter is {delimiter!r}, one character is needed")
        self.file, self.delimiter = file, delimiter

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {}

    def columns(self) -> Columns:
        """The columns of the file."""
        cure = "a CSV file whose first line names its columns is needed, or set CATCHMARK_DATA to its folder"
        return read_columns(find_archive(self.file, "no table", cure), self.delimiter)


def read_columns(path: Path, delimiter: str | None = None) -> Columns:
    """The columns of a CSV file, with every cell stripped of spaces and empty where it is missing.

    Args:
        path: the file.
        delimiter: what divides the columns; None to tell it by the first line.

    Raises:
        ValueError: it is no such file; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as such") from error
    first = text.partition("\n")[0]
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        names = [name.strip() for name in next(lines, [])]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if not names or twice or "" in names:
            what = f"names '{twice[0]}' twice" if twice else "has a column without a name" if names else "is empty"
            raise ValueError(f"{path}: the first line {what}; it must name each column")
        rows = []
        for cells in lines:
            if not any(map(str.strip, cells)):
                continue
            if len(cells) != len(names):
                raise ValueError(f"{path}, line {lines.line_num}: {len(cells)} cells, the first line has {len(names)}")
            rows.append(["" if cell.strip().lower() in _MISSING else cell.strip() for cell in cells])
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num}: {error}") from error
    if len(rows) < 2:
        raise ValueError(f"{path} has {len(rows)} rows below the names of its columns, at least 2 are needed")
    return Columns({name: [row[k] for row in rows] for k, name in enumerate(names)}, str(path))
