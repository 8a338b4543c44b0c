"""What holds for every test."""

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from search.tables import SHIPPED_FOLDER
from tests import forks

# Where tests run in the background of a script, the shell has Ctrl+C ignored, for them and for every process that they
# start; some of these are to be stopped by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


DATA = Path(os.environ["CATCHMARK_DATA"]).expanduser().resolve() if os.environ.get("CATCHMARK_DATA") else None
"""Where the real data are that cannot ship, as it was said when the tests began; some of them say another."""


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of the tests that look for real data: ``pytest -m data`` runs those."""
    config.addinivalue_line("markers", "data: looks for real data in $CATCHMARK_DATA")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them by the fixture that they ask for."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of every search for garbage: half a million objects, seldom any."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """And what a file's tests have imported, which stays as well."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def server() -> forks.Server:
    """Forks processes that need no fresh interpreter."""
    return forks.server()


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Finds real data by name: in $CATCHMARK_DATA, else among the tables that ship, else skips what asked for it."""

    def find(name: str) -> Path:
        for folder in (*([DATA] if DATA else []), SHIPPED_FOLDER):
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"{name} does not ship: set CATCHMARK_DATA (now {DATA or 'not set'}) to a folder that has it")

    return find
