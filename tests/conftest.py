"""What holds for every test."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from search.tables import SHIPPED_FOLDER

# Where tests run in the background of a script, the shell has Ctrl+C ignored, for them and for every process that they
# start; some of these are to be stopped by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


DATA = Path(os.environ["CATCHMARK_DATA"]).expanduser().resolve() if os.environ.get("CATCHMARK_DATA") else None
"""Where the real data are that cannot ship, as it was said when the tests began; some of them say another."""


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Finds real data by name: in $CATCHMARK_DATA, else among the tables that ship, else skips what asked for it."""

    def find(name: str) -> Path:
        for folder in (*([DATA] if DATA else []), SHIPPED_FOLDER):
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"{name} does not ship: set CATCHMARK_DATA (now {DATA or 'not set'}) to a folder that has it")

    return find
