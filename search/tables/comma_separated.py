"""Tables from comma-separated text: one architecture a line, one measured quantity a column."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from search.evaluation import Architecture

ARCHITECTURE_HEADERS = ("arch", "arch_str")


def read_csv(source: Path, parse: Callable[[str], Architecture]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read architectures and columns; an empty cell is NaN.

    Args:
        source: a file whose first line names its columns: ``arch`` or ``arch_str``, and any others.
        parse: from the text of an architecture to its choice indices.

    Returns:
        int8 ``[n, decisions]``, and float32 ``[n]`` by column name.

    Raises:
        ValueError: a header, an architecture or a number cannot be read, or is infinite; the line is named.
    """
    with source.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        header = [name.strip() for name in next(lines, [])]
        found = [name for name in header if name in ARCHITECTURE_HEADERS]
        if len(found) != 1:
            raise ValueError(f"{source.name}: the first line must name one column 'arch' or 'arch_str', not {header}")
        for name in header:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or header.count(name) > 1:
                raise ValueError(
                    f"{source.name}: '{name}' is not a column name, or comes twice; names are lower-case like "
                    f"'cifar10_valid_val_acc_200ep'"
                )
        position = header.index(found[0])
        archs: list[Architecture] = []
        values: list[list[float]] = []
        for cells in tqdm(lines, desc=source.name, unit=" lines", leave=False, disable=None):
            if not cells:
                continue
            try:
                if len(cells) != len(header):
                    raise ValueError(f"{len(cells)} cells, the header has {len(header)}")
                archs.append(parse(cells.pop(position).strip()))
                values.append([_number(cell) for cell in cells])
            except ValueError as error:
                raise ValueError(f"{source.name}, line {lines.line_num}: {error}") from error
    if not archs:
        raise ValueError(f"{source.name}: no line after the header")
    names = [name for name in header if name not in ARCHITECTURE_HEADERS]
    table = np.array(values, dtype=np.float32).reshape(len(archs), len(names))
    return np.array(archs, dtype=np.int8), {name: table[:, k] for k, name in enumerate(names)}


def _number(cell: str) -> float:
    if not cell.strip():
        return math.nan
    value = float(cell)
    if abs(value) > float(np.finfo(np.float32).max):  # it would be stored as infinity
        raise ValueError(f"'{cell.strip()}' is no number that a table can hold; leave out what was not measured")
    return value
