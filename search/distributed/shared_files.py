"""Files that rank 0 writes and all ranks read."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from search.errors import CatchmarkError
from search.training.launch import Launch

_SHARED_SECONDS = 60.0
"""How long what rank 0 has written may take to be seen elsewhere: a network file system may remember for a minute that
a file was not there, or what it was."""
_CURE = "keep the run's folder where every node sees it by the same name"

Content = TypeVar("Content")


def see_checkpoint(path: Path, epochs: int, read: Callable[[], int], launch: Launch) -> None:
    """Wait until this rank sees the checkpoint that rank 0 goes on from.

    Args:
        path: of the file.
        epochs: that it is behind.
        read: reads from the file how many epochs it is behind.
        launch: of this process.

    Raises:
        CatchmarkError: it does not see it.
    """
    found = _wait_for(path, epochs, read)
    if found != epochs:
        raise CatchmarkError(
            f"{_rank(launch)} does not see the checkpoint {path} that rank 0 goes on from, {epochs} epochs on; there "
            f"it is {'absent' if found is None else f'{found} epochs on'}: {_CURE}"
        )


def see_weights(path: Path, digest: str, read: Callable[[], str], launch: Launch) -> None:
    """Wait until this rank sees the weights that rank 0 begins with.

    Args:
        path: of the file.
        digest: of these weights.
        read: reads from the file what the digest of its weights is.
        launch: of this process.

    Raises:
        CatchmarkError: it does not see them.
    """
    found = _wait_for(path, digest, read)
    if found != digest:
        raise CatchmarkError(
            f"{_rank(launch)} does not see the weights {path} that rank 0 begins with; there are "
            f"{'none' if found is None else 'others'}: {_CURE}"
        )


def _wait_for(path: Path, expected: Content, read: Callable[[], Content]) -> Content | None:
    """What a file says, at the latest after a minute; None where there is none, or half of one."""
    deadline = time.monotonic() + _SHARED_SECONDS
    while (found := _read(path, read)) != expected and time.monotonic() <= deadline:
        time.sleep(0.2)
    return found


def _read(path: Path, read: Callable[[], Content]) -> Content | None:
    with suppress(OSError):
        os.listdir(path.parent)  # makes a network file system look again
    try:
        return read() if path.is_file() else None
    except (CatchmarkError, ValueError):
        return None


def _rank(launch: Launch) -> str:
    return f"rank {launch.rank} ({socket.gethostname()})"
