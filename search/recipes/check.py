"""Checks a recipe against the signatures of the classes it names.

The check walks the YAML beside the annotations of the constructors, expands short class names, and says in one line
what is wrong where, with the nearest valid spelling. Types that it has no words for are left to jsonargparse.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from search.errors import CatchmarkError, join, kind, nearest
from search.recipes.classes import find_class, find_parameters
from search.recipes.trust import RECIPE, Trust, Untrusted

_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_PLAIN: dict[Any, tuple[type | tuple[type, ...], str]] = {
    type(None): (type(None), "null"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "text"),
    Path: (str, "text"),
    os.PathLike: (str, "text"),
}
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_UNKNOWN = object()
"""In place of a type that can't be found out here."""


class _Mismatch(CatchmarkError):
    """A value of another kind than its key needs."""

    def __init__(self, key: str, needed: str, value: Any):
        self.key, self.needed = key, needed
        unquoted = isinstance(value, (bool, int, float)) and "text" in needed.split(" or ")
        super().__init__(f"{key}: {needed} is needed, this is {kind(value)}{'; put it in quotes' if unquoted else ''}")


@dataclasses.dataclass(frozen=True)
class Described:
    """A class that a recipe describes.

    Args:
        owner: the class.
        class_path: its name; None of settings, which stand without one.
        arguments: as they were checked.
        key: where they stand.
        skip: leading constructor arguments that the recipe does not give.
        is_factory: what is asked for is not the object, but what makes it of those.
    """

    owner: type
    class_path: str | None
    arguments: dict[Any, Any]
    key: str
    skip: int = 0
    is_factory: bool = False


class RecipeCheck:
    """One walk over one recipe; it remembers which arguments stood where.

    Every method takes the dotted ``key`` at which the recipe says something, and raises a `CatchmarkError` that begins
    with the key.

    Args:
        trust: what may be imported.
        tiny: replaces the arguments of every class, given the class, the arguments and the constructor's parameters.
    """

    def __init__(self, trust: Trust = RECIPE, tiny: Callable[..., dict[str, Any]] | None = None) -> None:
        self._trust, self._tiny = trust, tiny
        self._places: list[tuple[type, dict[Any, Any], str]] = []
        self._described: dict[int, tuple[Any, Described]] = {}

    def described(self, checked: Any) -> Described | None:
        """Which class a part of what was checked describes, the very object; None if none."""
        return self._described.get(id(checked), (None, None))[1]

    def _note(self, checked: Any, described: Described) -> Any:
        self._described[id(checked)] = checked, described  # whose number is its own as long as it is there
        return checked

    def key_of(self, owner: type, arguments: dict[str, Any]) -> str:
        """Where the recipe describes an object, told from others of its class by its arguments; empty if nowhere."""
        places = [(given, key) for each, given, key in self._places if each is owner]
        alike = [
            key
            for given, key in places
            if all(arguments.get(name) == value for name, value in given.items() if not isinstance(value, (dict, list)))
        ]
        return [*alike, *(key for _, key in places), ""][0].removesuffix(".init_args")

    # ---- values ----------------------------------------------------------------------------------------------------

    def value(self, value: Any, annotation: Any, key: str) -> Any:
        """The value, with short class names expanded, if it is of the type that a constructor asks for."""
        if isinstance(value, str) and annotation is not str:
            _refuse_described(value, key)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        bare = annotation if origin is None else origin
        if origin is typing.Annotated:
            return self.value(value, arguments[0], key)
        if origin in (typing.Union, types.UnionType):
            return self._union(value, arguments, key)
        if origin is typing.Literal:
            return self._choice(value, arguments, key)
        if origin is collections.abc.Callable:
            return self._callable(value, arguments, key)
        if bare in _MAPPINGS:
            names, inside = arguments or (Any, Any)
            return self._mapping(value, names, inside, key)
        if bare in _LISTS:
            return self._list(value, arguments, key)
        if bare in _PLAIN:
            return self._plain(value, bare, key)
        if annotation is _UNKNOWN or origin is type:
            return self._anything(self._left_to_others(value, key), key)
        # Python 3.11 makes Any a class.
        if annotation in (Any, object) or not inspect.isclass(annotation) or issubclass(annotation, enum.Enum):
            return self._anything(value, key)
        if dataclasses.is_dataclass(annotation):
            return self._settings(value, annotation, key)
        return self.class_(value, annotation, key)

    def _union(self, value: Any, members: tuple[Any, ...], key: str) -> Any:
        needed: list[str] = []
        inside: CatchmarkError | None = None
        # Of data, text comes last: jsonargparse may take for the name of a class what could also be text.
        last = () if self._trust.everything else (str, Path, os.PathLike)
        for member in sorted(members, key=lambda member: (member is type(None), member in last)):
            try:
                return self.value(value, member, key)
            except Untrusted:
                raise
            except CatchmarkError as problem:
                if isinstance(problem, _Mismatch) and problem.key == key:
                    needed.append(problem.needed)
                else:  # it has this member's form, and is wrong inside
                    inside = inside or problem
        raise inside or _Mismatch(key, " or ".join(dict.fromkeys(needed)), value)

    def _choice(self, value: Any, choices: tuple[Any, ...], key: str) -> Any:
        if value not in choices:
            allowed = ", ".join(map(str, choices))
            near = nearest(str(value), map(str, choices), words="")
            raise CatchmarkError(f"{key}: {kind(value)} is not one of: {allowed}{near}")
        return value

    def _callable(self, value: Any, arguments: tuple[Any, ...], key: str) -> Any:
        takes, result = arguments or (..., Any)
        if takes is ... or not inspect.isclass(result):
            return self._left_to_others(value, key)
        checked = self.class_(value, result, key, skip=len(takes))
        return self._note(checked, dataclasses.replace(self._described[id(checked)][1], is_factory=True))

    def _mapping(self, value: Any, names: Any, inside: Any, key: str) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise _Mismatch(key, "a mapping of names to values", value)
        for name in value:
            if names is str and not isinstance(name, str):
                raise CatchmarkError(f"{key}: the name {kind(name)} is not text; put it in quotes")
        return {name: self.value(each, inside, join(key, name)) for name, each in value.items()}

    def _list(self, value: Any, arguments: tuple[Any, ...], key: str) -> list[Any]:
        if not isinstance(value, list):
            raise _Mismatch(key, "a list", value)
        fixed = len(arguments) > 1 and arguments[-1] is not ...
        if fixed and len(value) != len(arguments):
            raise CatchmarkError(f"{key}: a list of {len(arguments)} values is needed, this has {len(value)}")
        members = arguments if fixed else (arguments[:1] or (Any,)) * len(value)
        return [self.value(each, members[k], f"{key}[{k}]") for k, each in enumerate(value)]

    def _plain(self, value: Any, annotation: Any, key: str) -> Any:
        accepted, needed = _PLAIN[annotation]
        # Python's True is an int as well.
        if not isinstance(value, accepted) or (isinstance(value, bool) and annotation in (int, float)):
            raise _Mismatch(key, needed, value)
        return _finite(value, key) if annotation is float else value

    def _anything(self, value: Any, key: str) -> Any:
        """Plain content of any form. jsonargparse would build whatever class is named in it, with any arguments."""
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, each in inside:
            at = join(key, name) if isinstance(value, dict) else f"{key}[{name}]"
            if name == "class_path":
                raise CatchmarkError(f"{at}: no class can be named here; '{key}' takes plain values")
            self._anything(each, at)
        if isinstance(value, str):
            _refuse_described(value, key)
        return value

    def _left_to_others(self, value: Any, key: str) -> Any:
        """What jsonargparse may take for the name of something to import."""
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, each in inside:
            self._left_to_others(each, join(key, name))
        if isinstance(value, str) and _IMPORT_PATH.fullmatch(value):
            self._trust.check(value, key)
        return value

    def _settings(self, value: Any, owner: type, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Mismatch(key, "a mapping of settings", value)
        if "class_path" in value:
            raise CatchmarkError(f"{key}.class_path: there is no such key; the settings stand directly below '{key}'")
        checked = self.arguments(value, owner, key)
        return self._note(checked, Described(owner, None, checked, key))

    # ---- classes ---------------------------------------------------------------------------------------------------

    def class_(self, value: Any, base: type, key: str, skip: int = 0) -> dict[str, Any]:
        """A class and its arguments: ``{class_path, init_args}``, or the bare name of a class that needs none.

        Args:
            value: what the recipe says.
            base: what it must be a subclass of.
            key: where it says so.
            skip: leading constructor arguments that the recipe does not give.
        """
        named_at = key if isinstance(value, str) else join(key, "class_path")
        given = {"class_path": value} if isinstance(value, str) else value
        if not isinstance(given, dict):
            raise _Mismatch(key, "the name of a class, or 'class_path' and 'init_args',", value)
        if "class_path" not in given:
            raise CatchmarkError(
                f"{named_at}: this key is missing, it names the class; the class's own arguments go below 'init_args'"
            )
        if not isinstance(given["class_path"], str):
            raise _Mismatch(named_at, "the name of a class", given["class_path"])
        for name in given:
            if name not in ("class_path", "init_args"):
                raise CatchmarkError(
                    f"{join(key, name)}: beside class_path only 'init_args' is allowed; arguments of the class go "
                    "below it"
                )
        found = find_class(given["class_path"], base, named_at, self._trust)
        arguments = {} if given.get("init_args") is None else given["init_args"]
        if not isinstance(arguments, dict):
            raise _Mismatch(join(key, "init_args"), "a mapping of arguments", arguments)
        checked = self.arguments(arguments, found, join(key, "init_args"), skip)
        described = Described(found, f"{found.__module__}.{found.__qualname__}", checked, join(key, "init_args"), skip)
        return self._note({"class_path": described.class_path, "init_args": checked}, described)

    def arguments(self, given: dict[Any, Any], owner: type, key: str, skip: int = 0) -> dict[str, Any]:
        """Arguments of a class beside its constructor's signature; ``skip`` as for `class_`."""
        known, hints, open_ended = find_parameters(owner, skip)
        for name in given:
            if name not in known and not (open_ended and isinstance(name, str)):
                instead = nearest(str(name), known) if known else f"; {owner.__name__} has no arguments"
                raise CatchmarkError(f"{join(key, name)}: there is no such key{instead}")
        for name, parameter in known.items():
            if parameter.default is parameter.empty and name not in given:
                raise CatchmarkError(f"{join(key, name)}: this key is missing, {owner.__name__} needs it")
        if self._tiny is not None:
            given = self._tiny(owner, given, known)
        checked = {name: self.value(value, hints.get(name, _UNKNOWN), join(key, name)) for name, value in given.items()}
        self._trust.check_arguments(owner, checked, key)
        self._places.append((owner, checked, key))
        return checked


def _refuse_described(text: str, key: str) -> None:
    """Refuse text that describes a class: jsonargparse reads text as YAML where it is not asked for text alone."""
    if "class_path" not in text and "\\" not in text:
        return
    with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
        waiting = [yaml.safe_load(text)]
        while waiting:
            each = waiting.pop()
            if isinstance(each, dict) and "class_path" in each:
                raise CatchmarkError(f"{key}: no class can be named in text")
            waiting += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
            if isinstance(each, str) and each != text:
                _refuse_described(each, key)


def _finite(value: Any, key: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise CatchmarkError(f"{key}: a finite number is needed, this is {kind(value)}")
    return number
