"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from search.errors import RunError, one_line


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n", "resume the run; nothing is lost")


def write_whole(path: Path, text: str, cure: str) -> None:
    """Write a text whole or not at all; what UTF-8 can't hold is replaced.

    Args:
        path: of the file.
        text: its content.
        cure: closes the message: what to do once there is room.

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    with whole(path, cure) as file:
        file.write(text.encode("utf-8", errors="replace"))


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
