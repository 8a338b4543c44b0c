"""Files of tensors: written whole or not at all, read only where they are whole.

torch writes a checksum of every part of a file and reads none of them: where a bit has flipped, it hands out other
weights without a word.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from search.errors import RunError, one_line

_CURE = "go on with the same command"


def save_tensors(path: Path, content: Any) -> None:
    """Save tensors and plain values; what was there before stays until all of it is on the disk.

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    import torch

    with whole(path, _CURE) as file:
        torch.save(content, file)


def copy_tensors(source: Path, path: Path) -> None:
    """Copy such a file, as it is.

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    with whole(path, _CURE) as file, source.open("rb") as original:
        shutil.copyfileobj(original, file)


@contextmanager
def whole(path: Path, cure: str) -> Iterator[BinaryIO]:
    """A file that takes its place when all of it is on the disk; what was there before stays until then.

    Args:
        path: of the file.
        cure: closes the message: what to do once there is room.

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    partial = path.with_suffix(".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch says of a full disk what its zip writer knows
        raise RunError(f"{path} could not be written ({one_line(error)}): see to the disk, then {cure}") from error


def load_tensors(path: str | Path, mmap: bool = False) -> Any:
    """What `torch.save` wrote, on the CPU; nothing in it is executed.

    Args:
        path: the file. One in torch's format of before 2020 has no checksums, and is read as it is.
        mmap: read tensors when they are used, not now.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds anything but tensors and plain values.
    """
    import torch

    path = Path(path)
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:
                    raise ValueError(f"its part '{part}' does not match its checksum")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipped)
    except Exception as error:  # zipfile, pickle and torch each have many ways to say it
        reason = str(error) if isinstance(error, ValueError) and "checksum" in str(error) else type(error).__name__
        raise ValueError(
            f"{path} is damaged, or not a file of tensors and plain values ({reason}); nothing in it was executed"
        ) from error
