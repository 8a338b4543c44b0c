"""Benchmark tables: one file holds every architecture of a benchmark and what was measured of it.

The file is a plain NumPy ``.npz`` without pickles:

* ``arch``: int8 ``[n, decisions]``, one architecture a row, as choice indices of the search space.
* one float32 array ``[n]`` per measured quantity, a *column*, NaN where nothing was measured. A column is named
  ``{dataset}_{split}_{metric}_{epochs}ep``, for instance ``cifar10_valid_val_acc_200ep``; parts that a quantity does
  not have are left out (``flops_m``). Accuracies are in percent, times in seconds. A float32 array ``[n, trainings]``
  holds several trainings of each architecture; the column is their mean.
* ``space`` (optional): the name of the search space.
* ``provenance`` (optional): a JSON object with ``source`` (base name), ``source_sha256``, ``columns_sha256`` and
  ``converter``.

Arrays of other shapes or types are ignored, so a file may carry more than this. An array is read only when asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.archives import find_archive, write_archive
from lightning_modules.spelling import spelled_alike
from search.tables import SHIPPED, SHIPPED_FOLDER

_CURE = "make it again with 'catchmark data', or fetch it again"


@dataclass(frozen=True)
class Table:
    """Some columns of a table.

    Attributes:
        arch: int8 ``[n, decisions]``.
        columns: float32 ``[n]`` by name, only those that were asked for.
        space: name of the search space, or None where the file does not say.
        provenance: where the numbers come from; empty where the file does not say.
    """

    arch: np.ndarray
    columns: dict[str, np.ndarray]
    space: str | None
    provenance: dict[str, Any]


def column_name(dataset: str, split: str, metric: str, epochs: int | None) -> str:
    """The name of the column that holds ``metric`` on ``split`` of ``dataset`` after ``epochs`` of training."""
    return "_".join([dataset, split, metric, *([] if epochs is None else [f"{epochs}ep"])])


def find_table(table: str | os.PathLike[str]) -> Path:
    """Where a table lies: below the current folder, else below ``$CATCHMARK_DATA``, else among the tables that ship.

    An absolute path is taken as it is.

    Raises:
        FileNotFoundError: it is in none of these places; the message names the tables that ship.
    """
    cure = (
        f"those that ship are {', '.join(SHIPPED)}; make another with 'catchmark data', or set CATCHMARK_DATA to the "
        "folder that has it"
    )
    return find_archive(table, "no table", cure, SHIPPED_FOLDER)


def list_columns(path: str | os.PathLike[str]) -> list[str]:
    """Names of a table's columns, in the order of the file. Reads the arrays' headers only.

    Raises:
        ValueError: the file is not a table, or is damaged.
    """
    with _open(path) as archive:
        rows = _header(archive, "arch", Path(path))[0][0]
        names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
        headers = {name: _header(archive, name, Path(path)) for name in names}
        return [
            name
            for name, (shape, dtype) in headers.items()
            if shape[:1] == (rows,) and len(shape) in (1, 2) and dtype.kind == "f"
        ]


def read_columns(path: str | os.PathLike[str], names: Sequence[str]) -> Table:
    """The architectures of a table and the columns asked for; nothing else is read.

    Every array's checksum is verified, and its SHA-256 too where the table's provenance has it.

    Args:
        path: the table.
        names: column names.

    Raises:
        ValueError: a column does not exist (the nearest ones are named), the file is not a table, or is damaged.
    """
    path = Path(path)
    with _open(path) as archive:
        members = {name.removesuffix(".npy") for name in archive.namelist()}
        provenance = json.loads(str(_array(archive, "provenance"))) if "provenance" in members else {}
        space = str(_array(archive, "space")) if "space" in members else None
        if "arch" not in members:
            raise ValueError(f"{path}: not a table of architectures (it has no array 'arch'); {_CURE}")
        for name in names:
            if name not in members:
                near = spelled_alike(name, list_columns(path), most=3, cutoff=0.0)
                raise ValueError(f"{path}: no column '{name}'; the nearest are {', '.join(near) or 'none at all'}")
        arch, columns = _array(archive, "arch"), {name: _array(archive, name) for name in names}
    if arch.dtype != np.int8 or arch.ndim != 2:
        raise ValueError(f"{path}: 'arch' is {arch.dtype} {list(arch.shape)}, int8 [n, decisions] is needed; {_CURE}")
    digests = provenance.get("columns_sha256", {})
    for name, column in columns.items():
        if column.dtype.kind != "f" or column.shape[:1] != arch.shape[:1] or column.ndim not in (1, 2):
            raise ValueError(f"{path}: '{name}' is {column.dtype} {list(column.shape)}, not float32 [{len(arch)}]")
        if name in digests and digests[name] != _digest(column):
            raise ValueError(f"{path}: column '{name}' does not match its SHA-256, the file was changed; {_CURE}")
        if column.ndim == 2:
            columns[name] = column.mean(axis=1, dtype=np.float64).astype(np.float32)
    return Table(arch, columns, space, provenance)


def write_table(
    path: str | os.PathLike[str],
    arch: np.ndarray,
    columns: Mapping[str, np.ndarray],
    space: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    compressed: bool = True,
) -> Path:
    """Write a table in one stroke: a reader sees the old file or the whole new one, never a part.

    Args:
        path: where to; missing folders are made.
        arch: ``[n, decisions]``, integers in int8's range, no row twice.
        columns: ``[n]`` by name, stored as float32.
        space: name of the search space.
        provenance: facts to record; the SHA-256 of every column is added to them.
        compressed: smaller files, which take a millisecond longer to open.

    Raises:
        ValueError: an architecture comes twice, or a column has not one value per architecture.
    """
    path, arch = Path(path), np.asarray(arch)
    small = arch.astype(np.int8)
    if arch.ndim != 2 or not np.array_equal(small, arch) or len(np.unique(small, axis=0)) != len(small):
        raise ValueError(f"{path.name}: architectures must be int8 [n, decisions] without a row twice")
    arrays: dict[str, np.ndarray] = {"arch": small}
    for name, column in columns.items():
        arrays[name] = np.asarray(column, dtype=np.float32)
        if arrays[name].shape != (len(small),) or name in ("arch", "space", "provenance"):
            raise ValueError(f"{path.name}: column '{name}' must hold {len(small)} values, not {arrays[name].shape}")
    digests = {name: _digest(column) for name, column in arrays.items() if name != "arch"}
    arrays["provenance"] = np.array(json.dumps({**(provenance or {}), "columns_sha256": digests}))
    if space is not None:
        arrays["space"] = np.array(space)
    return write_archive(path, arrays, compressed)


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The table's archive; whatever a damaged file makes the readers raise becomes one line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}; make it with 'catchmark data'")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: the table is damaged ({error}); {_CURE}") from error
    except Exception as error:  # zlib, struct, zipfile and numpy each have their own way to say it
        raise ValueError(f"{path}: the table is damaged ({error or type(error).__name__}); {_CURE}") from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    # read() goes to the member's end, where zipfile compares the checksum; numpy.load may stop short of it.
    return np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"{path}: not a table of architectures (it has no array '{name}'); {_CURE}")
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        return shape, dtype


def _digest(column: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(column, dtype="<f4").tobytes()).hexdigest()
