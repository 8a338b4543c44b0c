"""What may be built, read and written on the word of a file that somebody else may have written.

A recipe that the user names is code: it names classes to import, and they do what they do. A run's folder is data,
whoever has made it: ``config.yaml``, ``network.json``, the journal and the weights may have come with a mail. From
them is built:

* what belongs to catchmark: a class out of its installed files, where one of its kind is asked for;
* what mmdet and mmseg have registered, by its registered name (`lightning_modules.openmmlab.names`);
* an optimiser of torch;
* what the user vouches for, with ``--trust NAME``.

No argument of ours asks for another class of torch or Lightning, so none of theirs is allowed. Everything else is
refused before it is imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, explain, join, kind, one_line

OUR_PACKAGES = ("search", "lightning_modules", "datamodules")
_ROOT = Path(__file__).resolve().parents[2]
_LARGEST = 2**28
"""Bytes of a JSON file; a summary of thousands of trials takes a tenth of them."""
_OPTIMISERS = re.compile(r"torch\.optim\.([a-z0-9]+\.)?[A-Z]\w*")
"""Import paths of torch's optimisers, which are arithmetic on numbers that they are given."""
_LINKED = re.compile(r"latest-run|debug.*\.log")
_LINKING = re.compile(r"(?:offline-)?run-.*")
"""Links that W&B makes and replaces, and folders of its finished runs."""

# Arguments of our classes that reach out of the folder: what answers at an address sends objects back that run code as
# they are unpacked, and what lies at a path is replaced.
_ADDRESSES = {"search.executors.ray.RayExecutor": "address"}
_WRITTEN = {
    "search.attributes.operator_latency.OperatorLatency": ("lookup",),
    "search.tasks.measured_latency.MeasuredLatencyTask": ("lookup",),
    "search.rewards.latency.MeasuredLatency": ("lookup",),
}
_WRITTEN_BY_TRAINERS = ("trainer", "default_root_dir")
_NO_ADDRESS = (None, "auto", "local")

_granted: ContextVar[tuple[str, ...]] = ContextVar("granted", default=())


class Untrusted(CatchmarkError):
    """A file names something that only its author could know to be harmless."""


@dataclass(frozen=True)
class Trust:
    """What may be built.

    Attributes:
        names: what the user vouches for: classes, modules and packages by import path, and files by path as they are
            named where they are used.
        everything: whether the user has named the file as their own code.
    """

    names: tuple[str, ...] = ()
    everything: bool = False

    def vouches_for(self, name: str) -> bool:
        """Whether the user has named this, or the module or package that it is in."""
        return self.everything or any(name == each or name.startswith(f"{each}.") for each in self.names)

    def check(self, name: str, key: str, what: str = "is not catchmark's own") -> None:
        """Refuse what is named at a key, unless the user vouches for it.

        Raises:
            Untrusted: one line with the cure.
        """
        if not self.vouches_for(name):
            raise Untrusted(
                f"{key}: {kind(name)} {what}, and a file that may be somebody else's must not choose what runs; if you "
                f"know who wrote it, add: --trust {shlex.quote(name)}"
            )

    def check_class(self, path: str, key: str) -> None:
        """Refuse a class by its import path, before anything is imported, unless it is ours or vouched for."""
        if not is_ours(path) and not _OPTIMISERS.fullmatch(path):
            self.check(path, key)

    def check_arguments(self, owner: type, arguments: Mapping[str, Any], key: str) -> None:
        """Refuse arguments of a class that let others run code, or write to a place outside of the current folder."""
        if self.everything:
            return
        for name, value, what in _reaching(owner, arguments):
            self.check(value, join(key, name), what)
        # A class whose arguments are configs says what it would import and run for them, one after another: what is
        # vouched for may bring what comes after it.
        try:
            for name, value, what in getattr(owner, "named_code", _nothing)(arguments):
                self.check(value, join(key, name), what)
        except (ImportError, ValueError) as error:
            raise CatchmarkError(f"{key}: {explain(error)}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it, a run's folder that is named somewhere is read with `granted` names."""
        token = _granted.set(self.names)
        try:
            yield
        finally:
            _granted.reset(token)


RECIPE = Trust(everything=True)
"""A recipe that the user names, or what a program of theirs describes."""


def trust_of(names: str | Iterable[str], everything: bool = False) -> Trust:
    """What ``--trust`` says, given as often as wanted."""
    return Trust((names,) if isinstance(names, str) else tuple(names), everything)


def granted() -> Trust:
    """For a run's folder that is named in what is being built: it is data there too."""
    return Trust(_granted.get())


def is_ours(path: str) -> bool:
    """Whether an import path leads into an installed package of ours, and not into a folder that is called the same."""
    package = path.partition(".")[0]
    if package not in OUR_PACKAGES:
        return False
    found = importlib.util.find_spec(package)  # of a package at the top: this looks, and imports nothing
    return found is not None and found.origin is not None and Path(found.origin).resolve().parent == _ROOT / package


def modules_of_others(described: Any) -> list[str]:
    """The modules of the classes in a recipe, or a part of one, that are not ours: who reads it again trusts these."""
    waiting, found = [described], dict[str, None]()
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += reversed([*each.values()])
            path = each.get("class_path")
            if isinstance(path, str) and "." in path and not is_ours(path):
                found[path.rpartition(".")[0]] = None
        elif isinstance(each, list):
            waiting += reversed(each)
    return list(found)


def with_trust(command: str, described: Any) -> str:
    """A command of catchmark, with what it takes for a recipe, or a part of one, that was allowed here."""
    return " ".join([command, *(f"--trust {shlex.quote(module)}" for module in modules_of_others(described))])


def _reaching(owner: type, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Key, value and what is wrong with it."""
    for base in (f"{each.__module__}.{each.__qualname__}" for each in owner.__mro__):
        if (name := _ADDRESSES.get(base)) is not None and arguments.get(name) not in _NO_ADDRESS:
            yield name, str(arguments[name]), "is a machine that would be given code and send objects back"
        for name in _WRITTEN.get(base, ()):
            if isinstance(path := arguments.get(name), str) and not _below(Path(path), Path.cwd()):
                yield name, path, "is a file outside of the current folder that would be written"
    trainer, place = arguments.get(_WRITTEN_BY_TRAINERS[0]), _WRITTEN_BY_TRAINERS[1]
    if isinstance(trainer, dict) and (path := trainer.get(place)) is not None and not _below(Path(path), Path.cwd()):
        yield ".".join(_WRITTEN_BY_TRAINERS), str(path), "is a place outside of the current folder to write to"


def _nothing(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What most classes import and run for their arguments."""
    return iter(())


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


# ---- folders and their files -----------------------------------------------------------------------------------------


def check_links(folder: Path) -> None:
    """Refuse a run's folder with a link that leads out of it: what is written into the folder would land elsewhere.

    Raises:
        CatchmarkError: it names the link.
    """
    for place, folders, files in os.walk(folder):
        in_wandb = "wandb" in Path(place).relative_to(folder).parts
        for name in (*folders, *files):
            path = Path(place) / name
            if path.is_symlink() and not (_below(path, folder) or (in_wandb and _LINKED.fullmatch(name))):
                raise CatchmarkError(
                    f"{path} is a link that leads out of the folder, to {os.readlink(path)}, where this would write; "
                    "put what it leads to in its place, or remove it"
                )
        folders[:] = [name for name in folders if not (in_wandb and _LINKING.fullmatch(name))]


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        OSError: it can't be read.
        ValueError: it is damaged, too large, or holds something else; says how, without the file's name.
    """
    with path.open("rb") as file:
        text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST:,} bytes")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(one_line(error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds {kind(content)}, a mapping is needed")
    return content
