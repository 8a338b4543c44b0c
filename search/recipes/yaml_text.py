"""Reads and writes recipes as YAML, more strictly than PyYAML does.

PyYAML reads YAML 1.1: ``1e-3`` is text there, ``1:30`` is ninety, ``010`` is eight, and of a key that stands twice the
first value is dropped without a word. Each of these would change an experiment behind its author's back.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterable
from typing import Any

import yaml

from search.errors import CatchmarkError, one_line

_MOST_NODES = 100_000
"""No recipe is that large. What aliases of aliases stand for can be, and what holds itself is."""

_TAG = "tag:yaml.org,2002:"
_NUMBERS = {
    "int": re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+)$"),
    "float": re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$"
        r"|^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"
        r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
}


class _Loader(yaml.SafeLoader):
    """Numbers as in YAML 1.2, dates as text, and no key twice."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and first.setdefault((key.tag, key.value), key) is not key:
                line = first[key.tag, key.value].start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice, first in line {line}", key.start_mark
                )
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as something else than text."""


def _resolvers(inherited: dict[str, Any], without: Iterable[str]) -> dict[str, Any]:
    tags = {_TAG + name for name in without}
    return {first: [entry for entry in entries if entry[0] not in tags] for first, entries in inherited.items()}


_Loader.yaml_implicit_resolvers = _resolvers(yaml.SafeLoader.yaml_implicit_resolvers, ("int", "float", "timestamp"))
_Dumper.yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers, ())
for _name, _pattern in _NUMBERS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, _pattern, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """The content of a YAML document: mappings, lists, text, numbers, booleans and null; no tag makes an object.

    Raises:
        CatchmarkError: it is not valid, a key stands twice, or it is too large or holds itself; one line, which names
            line and column.
    """
    return copy.deepcopy(_parsed(text))


@functools.lru_cache(maxsize=64)  # a recipe is read to be run and again for its report, and PyYAML takes its time
def _parsed(text: str) -> Any:
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        problem = error.problem or error.context or "not YAML"
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        raise CatchmarkError(place + " ".join(problem.split())) from error
    except yaml.YAMLError as error:
        raise CatchmarkError(one_line(error)) from error
    except ValueError as error:  # the constructors of numbers have limits of their own
        raise CatchmarkError(one_line(error)) from error
    except RecursionError as error:
        raise CatchmarkError("it is nested too deeply") from error
    _check_size(content)
    return content


def _check_size(content: Any) -> None:
    """Aliases share what they stand for in memory, but not in what follows."""
    waiting, seen = [content], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise CatchmarkError(f"it has more than {_MOST_NODES:,} entries, or an alias that holds itself")
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def dump_yaml(content: Any) -> str:
    """A YAML document that `parse_yaml`, and every other reader of YAML, reads back as the same content."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
