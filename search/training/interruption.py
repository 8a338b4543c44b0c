"""What ends a process from outside interrupts it, as Ctrl+C does: it unwinds, closes its journal, and can go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_asked = threading.Event()


def interrupt(signum: int, frame: Any) -> None:
    """Answer a signal."""
    _asked.set()
    raise KeyboardInterrupt


def check_interruption() -> None:
    """To be called now and then: an exception that was raised while Python tidied up has been dropped.

    Raises:
        KeyboardInterrupt: the process was told to end.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


@contextmanager
def termination_as_interruption() -> Iterator[None]:
    """A scheduler that ends the process interrupts what is inside."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
        _asked.clear()
