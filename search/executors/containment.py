"""The process as it is before an evaluation, put back behind it: a task is code that nobody here has read."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from types import TracebackType
from typing import Any

import numpy as np
import torch

_STREAMS = ("stdin", "stdout", "stderr")
_COPIES_FROM = 256
"""Where copies of the standard streams' descriptors lie: above those that a task may close in a row."""


class Containment:
    """What a run relies on and an evaluation may change, as it is now: a context, which ends with this care for it.

    That is the working folder, the standard streams, the answers to Ctrl+C and SIGTERM, that no alarm is set, that
    warnings and rounding are no errors, and how torch computes by default.
    """

    def __init__(self) -> None:
        self._process, self._folder = os.getpid(), _working_folder()
        self._streams = {name: getattr(sys, name) for name in _STREAMS}
        self._files = [_identity(descriptor) for descriptor in range(3)]
        self._copies = [None if file is None else _copy(k) for k, file in enumerate(self._files)]
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._timed = signal.getitimer(signal.ITIMER_REAL)[0] > 0
        self._filters, self._numpy = list(warnings.filters), np.geterr()
        self._torch = torch.is_grad_enabled(), torch.get_default_dtype()

    def __enter__(self) -> Containment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the copies."""
        for copy in self._copies:
            if copy is not None:
                with suppress(OSError):
                    os.close(copy)
        self._copies = [None] * 3

    def restore(self) -> None:
        """Put back what is not as it was; a process that an evaluation has forked off and let go on ends here."""
        if os.getpid() != self._process:
            os._exit(1)  # it must not write what its parent writes
        if self._folder is not None and _working_folder() != self._folder:
            with suppress(OSError):
                os.chdir(self._folder)
        self._restore_streams()
        self._restore_signals()
        if warnings.filters != self._filters:
            # Others may be there to stay: a package that was imported has set them.
            kept = [each for each in warnings.filters if each[0] != "error" or each in self._filters]
            warnings.filters[:] = kept  # type: ignore[index]
            with warnings.catch_warnings():
                pass  # or Python would not notice
        np.seterr(**self._numpy)
        if (torch.is_grad_enabled(), torch.get_default_dtype()) != self._torch:
            torch.set_grad_enabled(self._torch[0])
            torch.set_default_dtype(self._torch[1])

    def _restore_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if handler is not None and signal.getsignal(number) != handler:
                    signal.signal(number, handler)
            if not self._timed and signal.getitimer(signal.ITIMER_REAL)[0] > 0:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _restore_streams(self) -> None:
        for descriptor, (file, copy) in enumerate(zip(self._files, self._copies, strict=True)):
            if copy is not None and _identity(descriptor) != file:
                with suppress(OSError):  # the copy was closed too
                    os.dup2(copy, descriptor)
        for descriptor, (name, stream) in enumerate(self._streams.items()):
            if descriptor > 0 and getattr(stream, "closed", False):
                self._streams[name] = stream = _opened_again(stream, descriptor)
            if getattr(sys, name) is not stream:
                setattr(sys, name, stream)


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Which file is open there, if one is."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _copy(descriptor: int) -> int | None:
    try:
        return fcntl(descriptor, F_DUPFD_CLOEXEC, _COPIES_FROM)
    except OSError:
        return None


def _opened_again(stream: Any, descriptor: int) -> Any:
    """A stream that was closed, on the descriptor that is open again."""
    try:
        return open(descriptor, "w", buffering=1, encoding=stream.encoding, errors=stream.errors, closefd=False)
    except (OSError, AttributeError):
        return stream
