"""NumPy archives on disk: where they are looked for, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from datamodules.locations import locations, looked_in


def find_archive(path: str | PathLike[str], absent: str, cure: str, shipped: Path | None = None) -> Path:
    """Where a file lies, looked for as `datamodules.locations.locations` says; an absolute path is taken as it is.

    Args:
        path: the file's.
        absent: opens the message where there is no such file, for instance ``no table``.
        cure: closes it: how to come by the file.
        shipped: the folder of those that ship, where some of its kind do.

    Raises:
        FileNotFoundError: it is in none of these places.
    """
    for candidate in locations(path, shipped):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{absent} '{Path(path).expanduser()}'{looked_in(path)}; {cure}")


def write_archive(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> Path:
    """Write an archive in one stroke: a reader sees the old file or the whole new one, never a part.

    Args:
        path: where to; missing folders are made.
        arrays: by name.
        compressed: smaller, and slower to open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
