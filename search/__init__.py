"""Decides which architecture: search spaces, tasks, agents, and the loop that joins them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


class _NamedAsOurs(MetaPathFinder):
    """Finds what a user keeps in folders of their own that are named as ours are, such as ``search/agents/mine.py``.

    Python looks for a package in one place, and that is ours. This is asked where nothing was found there, so a file of
    theirs never hides one of ours; and it is there in every process, for all of them import this package.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What Python's path has of a module that is not ours."""
        *folders, _ = fullname.split(".")
        if folders[:1] not in (["search"], ["datamodules"], ["lightning_modules"]):
            return None
        return PathFinder.find_spec(fullname, [os.path.join(each, *folders) for each in sys.path])


sys.meta_path.append(_NamedAsOurs())


def __getattr__(name: str) -> Any:
    """`search.find`, and what it imports, when it is first asked for: importing the package loads nothing heavy."""
    if name == "find":
        return importlib.import_module("search.deploy.find").find
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
