"""What makes an agent cheap, for tests that make one themselves."""

import dataclasses
import inspect
import typing

from search.recipes.build import build


def toy_options(found):
    """The toy arguments of an agent as Python has them: objects, where a recipe has their fields or their classes."""
    hints = typing.get_type_hints(found.__init__)
    return {name: _built(name, value, _classes(hints[name])) for name, value in found.toy().items()}


def _built(name, value, classes):
    for kind in classes:
        if dataclasses.is_dataclass(kind) and isinstance(value, dict):
            return kind(**value)
        if isinstance(value, dict) and "class_path" in value:
            return build(value, kind, name)
        if isinstance(value, list) and inspect.isabstract(kind):
            return [build(each, kind, name) for each in value]
    return value


def _classes(hint):
    """The classes in an annotation, those of containers too, without what is built in."""
    if inner := typing.get_args(hint):
        return [each for part in inner for each in _classes(part)]
    return [hint] if isinstance(hint, type) and hint.__module__ != "builtins" else []
