"""Real processes as tests see them: which there are, what they do, and waiting for that."""

import os
import signal
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 300
"""Seconds until what has not happened is taken not to come: on a busy machine everything may take long."""


def wait_until(true, said=lambda: ""):
    """Wait for an event.

    Args:
        true: whether it has come.
        said: what to say where it does not.
    """
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, f"waited in vain {said()}"
        time.sleep(0.02)


def killed_in(work, *arguments, **options):
    """Do some work in a process of its own; whether that was killed, where it did not end well."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            work(*arguments, **options)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def alive(process):
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def threads_of(process):
    """How many a process has."""
    return len(os.listdir(f"/proc/{process}/task"))


def descendants_of(process):
    """Every process that a process has started, and those that these have."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = [process]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return [each for each in found[1:] if alive(each)]


@contextmanager
def kept_port():
    """A port of this machine that is given to nobody else, and that a process which asks for it by number may use."""
    with socket.socket() as keeper:
        # Linux lets another socket that says the same listen where this one, which does not listen, is bound.
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]
