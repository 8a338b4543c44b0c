"""What a class says of itself and of the arguments that a recipe may give it: signature and docstring, side by side."""

from __future__ import annotations

import collections.abc
import inspect
import re
import types
import typing
from typing import Any, NamedTuple

from search.recipes.classes import find_parameters

_ENTRY = re.compile(r"^\*{0,2}(\w+)(?: \([^)]*\))?: (.*)$")
"""Where what is said of an argument begins, in Google's style."""


class Argument(NamedTuple):
    """One argument of a class.

    Attributes:
        name: its key in a recipe.
        annotation: its type, as Python has it; None where it is not known.
        default: as Python has it; `inspect.Parameter.empty` where there is none.
        described: what the docstring says of it, in one line; may be empty.
    """

    name: str
    annotation: Any
    default: Any
    described: str

    @property
    def required(self) -> bool:
        """Whether a recipe must give it."""
        return self.default is inspect.Parameter.empty


def describe_arguments(owner: type, skip: int = 0) -> tuple[list[Argument], bool]:
    """The arguments that a recipe may give to a class, and whether there may be others.

    Args:
        owner: the class.
        skip: leading constructor arguments that a recipe does not give.
    """
    known, hints, open_ended = find_parameters(owner, skip)
    said: dict[str, str] = {}
    for each in reversed(owner.__mro__[:-1]):  # what a class says itself counts more than what its bases say
        said |= _entries(each.__doc__ or "") | _entries(vars(each).get("__init__", None).__doc__ or "")
    arguments = [Argument(name, hints.get(name), each.default, said.get(name, "")) for name, each in known.items()]
    return arguments, open_ended


def first_lines(owner: type) -> str:
    """What a class is: the first paragraph of its docstring."""
    return " ".join(inspect.cleandoc(owner.__doc__ or "").split("\n\n")[0].split())


def type_in_words(annotation: Any) -> str:
    """A type as a recipe's author needs it: ``number, or null``."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None:
        return ""
    if origin is typing.Annotated:
        return type_in_words(members[0])
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(dict.fromkeys(type_in_words(each) for each in members))
    if origin is typing.Literal:
        return "one of: " + ", ".join(map(str, members))
    if annotation is type(None):
        return "null"
    if origin is not None and inspect.isclass(origin) and issubclass(origin, collections.abc.Callable):  # type: ignore[arg-type]
        made = members[-1] if members else None
        return _one(made) if inspect.isclass(made) else "a function"
    plain = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "anything"}
    if annotation in plain:
        return plain[annotation]
    bare = annotation if origin is None else origin
    if inspect.isclass(bare) and issubclass(bare, dict | typing.Mapping):
        inside = f" of names to: {type_in_words(members[1])}" if len(members) > 1 and members[1] is not Any else ""
        return f"mapping{inside}"
    if inspect.isclass(bare) and issubclass(bare, list | tuple | set | frozenset | typing.Sequence):
        inside = f" of: {type_in_words(members[0])}" if members and members[0] is not Any else ""
        return f"list{inside}"
    return _one(bare) if inspect.isclass(bare) else str(annotation)


def _one(owner: type) -> str:
    return f"{'an' if owner.__name__[0] in 'AEIO' else 'a'} {owner.__name__}"


def _entries(docstring: str) -> dict[str, str]:
    """What a docstring says below ``Args:`` or ``Attributes:``, by name."""
    found: dict[str, list[str]] = {}
    inside, indent, name = False, 0, None
    for line in inspect.cleandoc(docstring).splitlines():
        text = line.strip()
        depth = len(line) - len(line.lstrip())
        if not depth and text:
            inside, indent, name = text in ("Args:", "Attributes:"), 0, None
            continue
        if not inside or not text:
            continue
        indent = indent or depth
        if depth == indent and (entry := _ENTRY.match(text)):
            name = entry[1]
            found[name] = [entry[2]]
        elif depth > indent and name is not None:
            found[name].append(text)
    return {name: " ".join(lines) for name, lines in found.items()}
