"""Parses and makes what a recipe describes, one class after another.

jsonargparse parses what is described inside of a class again with every class around it, several times over: a task in
a task in a study takes it a second. Here it sees of each class what is plain: numbers, text, settings. The classes
inside, by themselves or as members of mappings and lists, are taken out before and put in again afterwards.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError, one_line
from search.recipes.check import Described, RecipeCheck
from search.recipes.classes import find_parameters

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
"""What jsonargparse makes a list of as well."""
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


@dataclass
class Part:
    """One class of a recipe, with its plain arguments parsed.

    Args:
        described: what the recipe says of it.
        parser: of the plain arguments.
        plain: what it has parsed.
        inside: the other arguments: parts, or mappings and lists of parts.
        order: the names of all arguments.
    """

    described: Described
    parser: ArgumentParser
    plain: Namespace
    inside: dict[str, Any]
    order: list[str]

    def description(self, is_member: bool = False) -> Any:
        """What the recipe says, with every default.

        Args:
            is_member: of a mapping or a list. There a class without arguments has empty ones, elsewhere none: so it has
                always been written, and recipes are compared with those of earlier runs.
        """
        import yaml

        text = self.parser.dump(self.plain, skip_unset=False, skip_validation=True)  # which parsing has done
        arguments = yaml.safe_load(text)
        for name, inside in self.inside.items():
            is_part = isinstance(inside, Part)
            arguments[name] = inside.description() if is_part else _each(lambda part: part.description(True), inside)
        arguments = {name: arguments[name] for name in [*self.order, *arguments] if name in arguments}
        if self.described.class_path is None:
            return arguments
        described = {"class_path": _shortest_path(self.described.owner)}
        return described | ({"init_args": arguments} if arguments or is_member else {})

    def make(self, construct: Callable[..., Any]) -> Any:
        """The object, or what makes it of the arguments that the recipe leaves out.

        Args:
            construct: makes the object, given a class and its arguments.
        """
        made = self.parser.instantiate(self.plain, instantiators=[(construct, object, True)])
        arguments = dict(made.items(branches=True, nested=False))
        for name, inside in self.inside.items():
            arguments[name] = _each(lambda part: part.make(construct), inside)
        if self.described.is_factory:
            return functools.partial(construct, self.described.owner, **arguments)
        return construct(self.described.owner, **arguments)


def parse_part(described: Described, check: RecipeCheck) -> Part:
    """Parse a class of a recipe, and those inside of it.

    Args:
        described: the class.
        check: which has checked it.

    Raises:
        CatchmarkError: a value is wrong; one line that begins with the key of the class.
    """
    from jsonargparse import ArgumentError, set_parsing_settings

    # Left to itself it also builds what is named in plain values, in text that is YAML for instance.
    set_parsing_settings(instantiate_subclass_spec_in_any=False)
    known, hints, _ = find_parameters(described.owner, described.skip)
    inside, plain = dict[str, Any](), dict[str, Any]()
    for name, value in described.arguments.items():
        apart = name in known and name in hints and _is_apart(value, hints[name], check, known[name].default)
        (inside if apart else plain)[name] = value
    left_out = list(inspect.signature(described.owner).parameters)[: described.skip]
    try:
        parser = _parser_of(described.owner, frozenset({*inside, *left_out}))
        parsed = parser.parse_object(plain)
    except (ArgumentError, ValueError, TypeError) as error:
        at = described.key
        raise CatchmarkError(f"{at}: {one_line(error)}" if at else one_line(error)) from error
    return Part(described, parser, parsed, {name: _parse(value, check) for name, value in inside.items()}, list(known))


def _shortest_path(owner: type) -> str:
    """The import path of a class, by the outermost of its packages that has it, as jsonargparse writes it too."""
    packages = owner.__module__.split(".")
    paths = [".".join(packages[:k]) for k in range(1, len(packages))]
    found = (path for path in paths if getattr(sys.modules.get(path), owner.__qualname__, None) is owner)
    return f"{next(found, owner.__module__)}.{owner.__qualname__}"


@functools.cache  # to read a signature takes longer than to parse by it
def _parser_of(owner: type, without: frozenset[str]) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(owner, skip=set(without))
    return parser


def _is_apart(value: Any, hint: Any, check: RecipeCheck, default: Any = inspect.Parameter.empty) -> bool:
    """Whether a value is a class, or a mapping or a list of nothing but classes."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_is_apart(value, member, check, default) for member in typing.get_args(hint))
    if (described := check.described(value)) is not None:
        # Settings of which some are given are laid over those that are the default.
        return described.class_path is not None or default in (None, inspect.Parameter.empty)
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, dict) and origin in _MAPPINGS:
        values, inner = list(value.values()), members[-1]
    elif isinstance(value, list) and origin in _LISTS:
        values, inner = value, members[0]
    else:
        return False
    classes = [each for each in values if each is not None]
    return bool(classes) and all(_is_apart(each, inner, check) for each in classes)


def _parse(value: Any, check: RecipeCheck) -> Any:
    if (described := check.described(value)) is not None:
        return parse_part(described, check)
    if isinstance(value, dict):
        return {name: _parse(each, check) for name, each in value.items()}
    return [_parse(each, check) for each in value] if isinstance(value, list) else value


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """What a function makes of a part, or of every part in a mapping or a list."""
    if isinstance(value, dict):
        return {name: _each(function, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_each(function, each) for each in value]
    return None if value is None else function(value)
