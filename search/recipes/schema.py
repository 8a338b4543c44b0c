"""Recipes as a JSON schema, by which an editor completes and checks them while they are written."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import os
import types
import typing
from pathlib import Path
from typing import Any

from search.recipes.classes import shipped_classes
from search.recipes.described import describe_arguments, first_lines
from search.recipes.recipe import NAMED
from search.studies.base import Study
from search.studies.experiment import Experiment

_PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", os.PathLike: "string"}
_IMPORT_PATH = {"type": "string", "pattern": "\\."}
"""A class of the user's own, by its import path."""


def recipe_schema() -> dict[str, Any]:
    """The schema of every recipe (JSON Schema, draft 2020-12).

    It allows what `search.recipes.check` allows, and a little more: of a recipe that is laid over a ``base``, what is
    required may stand below, and what a class of the user's own takes is not known.
    """
    writer = _Writer()
    experiment = writer.arguments(Experiment, 0)
    laid_over = {key: value for key, value in experiment.items() if key != "required"}
    base = {"type": "string", "description": "a recipe that this one is laid over, relative to this file"}
    whole = {
        "if": {"anyOf": [{"required": ["base"]}, {"required": ["class_path"]}]},
        "then": {},
        "else": {"required": experiment.get("required", [])},
    }
    named = writer.named(Study, 0)
    properties = {
        key: _or_taken_out(value) if key in NAMED else value for key, value in laid_over["properties"].items()
    }
    overlay = {"properties": {"base": base, "init_args": {"type": "object"}, **properties}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of catchmark",
        "type": "object",
        "if": {"required": ["base"]},
        "then": overlay,
        "else": {"if": {"required": ["class_path"]}, "then": named, "else": {**laid_over, **whole}},
        "$defs": writer.definitions,
    }


def _or_taken_out(described: dict[str, Any]) -> dict[str, Any]:
    """A mapping of names in which null, too, may stand for a name: what a recipe takes out of its base."""
    if "anyOf" in described:
        return {**described, "anyOf": [_or_taken_out(each) for each in described["anyOf"]]}
    if isinstance(inside := described.get("additionalProperties"), dict):
        return {**described, "additionalProperties": {"anyOf": [inside, {"type": "null"}]}}
    return described


class _Writer:
    """Writes a definition for each class, and for each kind of class, once."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def _defined(self, name: str, write: Any) -> dict[str, Any]:
        if name not in self.definitions:
            self.definitions[name] = {}  # a class may lead back to itself
            self.definitions[name] = write()
        return {"$ref": f"#/$defs/{name}"}

    def named(self, base: type, skip: int) -> dict[str, Any]:
        """A class of one kind, by its name alone or with arguments."""
        return self._defined(f"{_name(base)}.{skip}", lambda: self._write_named(base, skip))

    def _write_named(self, base: type, skip: int) -> dict[str, Any]:
        classes = shipped_classes(base)
        if not classes:  # of others, such as one of Lightning's; their arguments are not known
            return {"anyOf": [_IMPORT_PATH, {"type": "object", "required": ["class_path"]}]}
        names = {"anyOf": [{"enum": list(classes)}, _IMPORT_PATH]}
        arguments = [
            {
                "if": {"properties": {"class_path": {"const": name}}},
                "then": {"properties": {"init_args": self._of_class(found, skip)}},
            }
            for name, found in classes.items()
        ]
        described = {
            "type": "object",
            "properties": {"class_path": names, "init_args": {"type": ["object", "null"]}},
            "required": ["class_path"],
            "additionalProperties": False,
            "allOf": arguments,
        }
        return {"description": first_lines(base), "anyOf": [names, described]}

    def _of_class(self, owner: type, skip: int) -> dict[str, Any]:
        return self._defined(f"{_name(owner)}.{skip}.arguments", lambda: self.arguments(owner, skip))

    def arguments(self, owner: type, skip: int) -> dict[str, Any]:
        """A mapping of a class's arguments."""
        arguments, open_ended = describe_arguments(owner, skip)
        properties = {}
        for each in arguments:
            value = self.value(each.annotation)
            if each.described:
                value = {**value, "description": each.described}
            if isinstance(each.default, str | int | float | bool) and not isinstance(each.default, enum.Enum):
                value = {**value, "default": each.default}
            properties[each.name] = value
        found: dict[str, Any] = {"type": "object", "description": first_lines(owner), "properties": properties}
        if required := [each.name for each in arguments if each.required]:
            found["required"] = required
        if not open_ended:
            found["additionalProperties"] = False
        return found

    def value(self, annotation: Any) -> dict[str, Any]:
        """What an argument of this type takes."""
        origin, members = typing.get_origin(annotation), typing.get_args(annotation)
        bare = annotation if origin is None else origin
        if origin is typing.Annotated:
            return self.value(members[0])
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.value(each) for each in members]}
        if origin is typing.Literal:
            return {"enum": list(members)}
        if annotation is type(None):
            return {"type": "null"}
        if origin is collections.abc.Callable:
            takes, result = members or (..., Any)
            return {} if takes is ... or not inspect.isclass(result) else self.named(result, len(takes))
        if bare in _PLAIN:
            return {"type": _PLAIN[bare]}
        if not inspect.isclass(bare) or annotation in (Any, object) or issubclass(bare, enum.Enum):
            return {}
        if issubclass(bare, collections.abc.Mapping):
            inside = self.value(members[1]) if len(members) > 1 else {}
            return {"type": "object", "additionalProperties": inside}
        if (issubclass(bare, collections.abc.Iterable) and origin is not None) or bare in (list, tuple, set):
            return {"type": "array", "items": self.value(members[0]) if members else {}}
        if dataclasses.is_dataclass(bare):
            return self._of_class(bare, 0)
        return self.named(bare, 0)


def _name(owner: type) -> str:
    """Two classes may share a short name."""
    return f"{owner.__module__}.{owner.__qualname__}"
