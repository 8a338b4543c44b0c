"""One process at a time: a lock that a killed process cannot leave behind."""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path

from search.errors import RunError


class HeldByAnother(RunError):
    """Another process holds a lock."""


class FileLock:
    """A file that one process at a time holds; the system takes it from a process that dies.

    Args:
        path: the file; it is made if absent, and stays.

    Raises:
        HeldByAnother: another process holds it.
        RunError: it can't be made.
    """

    def __init__(self, path: Path):
        self._descriptor: int | None = None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(f"{path} can't be written ({error.strerror}): the run's folder must be writable") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            raise HeldByAnother(
                f"{path.parent} is being written by another process{f' ({holder})' if holder else ''}; "
                "wait for it, or stop it first"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise RunError(f"{path} can't be locked ({error.strerror}): keep runs on another file system") from error
        self._descriptor, self._file = descriptor, _identity(os.fstat(descriptor))
        _HELD.add(self)
        with suppress(OSError):  # whose lock it is matters to people only
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    @property
    def held(self) -> bool:
        """Whether the file is still open in this process: somebody may have closed whatever was."""
        if self._descriptor is None:
            return False
        try:
            return _identity(os.fstat(self._descriptor)) == self._file
        except OSError:
            return False

    def release(self) -> None:
        """Let go; without effect the second time."""
        if self.held:
            assert self._descriptor is not None
            os.close(self._descriptor)
        self._descriptor = None

    def __del__(self) -> None:
        """A lock that nobody refers to is not held."""
        self.release()


def holder_of(path: Path) -> int | None:
    """The process of this machine that holds a lock's file, None where none does; nothing is written.

    A lock that no living process of this machine has noted is not even tried: to try it would, for a moment, be in the
    way of a run that begins.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        process = int(os.read(descriptor, 20))
        with suppress(PermissionError):  # somebody else's, but there
            os.kill(process, 0)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return process
    except (ValueError, OverflowError, OSError):
        return None
    finally:
        os.close(descriptor)
    return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


_HELD: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget() -> None:
    # A forked process shares its parent's locks: a data loader's worker that outlives a killed run would keep the run
    # from being resumed.
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_forget)
