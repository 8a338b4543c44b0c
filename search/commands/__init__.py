"""The commands of catchmark: ``catchmark NAME`` is ``search/commands/NAME.py``, and no other file lists it.

A file of a command has

* ``HELP``: one line, what it does;
* ``EXAMPLE``: a command line that does it;
* ``MORE``, where one line does not say all;
* ``NAMES_CODE``, where it has other arguments than ``--trust`` by which a user names code of their own;
* ``add_arguments(parser)``: its flags, by `argparse`;
* ``rewrite(words)``, where argparse can't read its words as they are: those that it can;
* ``run(chosen)``: does it, and returns the exit code.

All of them are imported before one is chosen: what is heavy, or slow to import, is imported within ``run``.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from types import ModuleType

TRUST = "--trust"


def find_commands() -> dict[str, ModuleType]:
    """The files of this folder, by the names of their commands."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The flag of every command that reads a run's folder and builds what is described there."""
    parser.add_argument(
        TRUST,
        action="append",
        default=[],
        metavar="NAME",
        help="a class, module or package of yours that the run's folder may name, which is data and can name "
        "catchmark's own only; may be given several times",
    )
