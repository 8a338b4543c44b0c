"""How what was stopped, or went wrong, tells it to the user."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from search.errors import CatchmarkError, RunError, explain


class Interrupted(RunError):
    """A run was stopped from outside and can go on."""

    exit_code = 130


@contextmanager
def told_in_one_line(folder: Path, kept: str, again: str) -> Iterator[None]:
    """Whatever stops what is inside becomes one line; the traceback of what nobody foresaw goes to a file.

    Args:
        folder: where the file ``error.txt`` goes.
        kept: what is not lost.
        again: how to go on.

    Raises:
        Interrupted: it was stopped from outside.
        RunError: something went wrong that nobody foresaw.
    """
    try:
        yield
    except CatchmarkError:
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {kept}, {again}") from None
    except BaseException as error:  # SystemExit too: only the command itself may end the command
        account = folder / "error.txt"
        where = ""
        with suppress(OSError):
            account.write_text(traceback.format_exc(), encoding="utf-8", errors="replace")
            where = f" (traceback in {account})"
        raise RunError(f"{explain(error)}{where}; {kept}, once the cause is mended {again}") from error
