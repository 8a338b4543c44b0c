"""Files that rank 0 writes and all ranks read."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search.errors import CatchmarkError
from search.training.launch import Launch

_SHARED_SECONDS = 60.0
"""How long what rank 0 has written may take to be seen elsewhere: a network file system may remember for a minute that
a file was not there, or what it was."""


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
    deadline = time.monotonic() + _SHARED_SECONDS
    while (found := _epochs(path, read)) != epochs:
        if time.monotonic() > deadline:
            raise CatchmarkError(
                f"rank {launch.rank} ({socket.gethostname()}) does not see the checkpoint {path} that rank 0 goes on "
                f"from, {epochs} epochs on; there it is {'absent' if found is None else f'{found} epochs on'}: keep "
                "the run's folder where every node sees it by the same name"
            )
        time.sleep(0.2)


def _epochs(path: Path, read: Callable[[], int]) -> int | None:
    """How many epochs a checkpoint is behind; None where there is none, or half of one."""
    with suppress(OSError):
        os.listdir(path.parent)  # makes a network file system look again
    try:
        return read() if path.is_file() else None
    except CatchmarkError:
        return None
