"""What holds for every test."""

import functools
import gc
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from search.tables import SHIPPED_FOLDER
from tests import forks

# Where tests run in the background of a script, the shell has Ctrl+C ignored, for them and for every process that they
# start; some of these are to be stopped by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests, and ours that they import, are compiled once and not by every process, also where Python is told to write no
# bytecode: half of what collecting takes. What is imported from the first test on is as the environment says.
_WRITES_NO_BYTECODE, sys.dont_write_bytecode = sys.dont_write_bytecode, False

# Whenever Lightning makes a Trainer it looks through all that is installed, which does not change while tests run.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)

DATA = Path(os.environ["CATCHMARK_DATA"]).expanduser().resolve() if os.environ.get("CATCHMARK_DATA") else None
"""Where the real data are that cannot ship, as it was said when the tests began; some of them say another."""


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of the tests that look for real data: ``pytest -m data`` runs those."""
    config.addinivalue_line("markers", "data: looks for real data in $CATCHMARK_DATA")


LONG = (
    "search/executors/test_ray.py",
    "search/distributed",
    "search/listeners/wandb",
    "search/studies",
    "search/recipes/test_recipes_run.py",
    "search/loop/test_resume.py",
    "search/deploy",
    "search/test_own_folders.py",
    "docs",
    "lightning_modules/test_supernet.py",
)
"""Files and folders whose tests take seconds each: they come first, so that at the end no process waits for another."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them by the fixture that they ask for, and put the long ones in front."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(Path(__file__).parent)
    return next((k for k, long in enumerate(LONG) if path.is_relative_to(long)), len(LONG))


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of every search for garbage: half a million objects, seldom any."""
    sys.dont_write_bytecode = _WRITES_NO_BYTECODE
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
