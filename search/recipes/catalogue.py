"""Which spaces, tasks, pools and agents there are.

A class of ours is found by living in the right folder: nobody registers anything. A user's own class is named in a
recipe by its import path instead.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil


def find_classes(package: str, base: type) -> dict[str, type]:
    """Every concrete subclass of ``base`` defined below ``package``, by class name, in alphabetical order."""
    return {name: found for name, found in _classes_below(package).items() if issubclass(found, base)}


@functools.cache  # a recipe asks dozens of times, and to walk through folders takes longer than to read a recipe
def _classes_below(package: str) -> dict[str, type]:
    root = importlib.import_module(package)
    found: dict[str, type] = {}
    for module_info in pkgutil.walk_packages(root.__path__, prefix=f"{package}."):
        module = importlib.import_module(module_info.name)
        for name, member in vars(module).items():
            if inspect.isclass(member) and member.__module__ == module.__name__ and not inspect.isabstract(member):
                found[name] = member
    return dict(sorted(found.items()))
