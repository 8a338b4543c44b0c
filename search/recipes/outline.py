"""What stands in a recipe, told in a blink: nothing is imported that it names, and nothing checked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError
from search.recipes.yaml_text import parse_yaml

RECIPES = Path(__file__).resolve().parents[2] / "experiments"
"""The folder of the recipes that ship with the package."""
_EXPERIMENT = Path(__file__).resolve().parents[1] / "studies" / "experiment.py"
_ALL_AGENTS = "agent"
"""Stands for every agent in a dotted key."""
Keys = dict[str, "Keys"]
"""Names, each with the names below it; none below a value."""


def recipe_keys(path: Path) -> Keys:
    """The dotted keys by which values of a recipe can be replaced, as a tree, without ``init_args``.

    What the recipe takes out of its base is there all the same, and of what stands at its default the arguments of an
    experiment alone: to know those of a class it would have to be imported.

    Args:
        path: a recipe's file; one that can't be read has no keys.
    """
    contents = list(_with_bases(path))
    keys: Keys = {}
    for content in contents:
        _add(keys, content)
    if contents and not any("class_path" in content for content in contents):
        for name in _arguments_of_an_experiment():
            keys.setdefault(name, {})
    if agents := keys.get("agents"):
        keys[_ALL_AGENTS] = {}
        for below in agents.values():
            keys[_ALL_AGENTS] |= below
    return keys


def _with_bases(path: Path) -> Iterator[dict[str, Any]]:
    seen: set[Path] = set()
    while path.resolve() not in seen:
        seen.add(path.resolve())
        try:
            content = parse_yaml(path.read_text(encoding="utf-8-sig"))
        except (CatchmarkError, OSError, UnicodeDecodeError):
            return
        if not isinstance(content, dict):
            return
        base = content.pop("base", None)
        yield content
        if not isinstance(base, str):
            return
        path = path.parent / base


def _add(keys: Keys, content: dict[str, Any]) -> None:
    for name, value in content.items():
        if name == "init_args":
            _add(keys, value if isinstance(value, dict) else {})
            continue
        below = keys.setdefault(str(name), {})
        if isinstance(value, dict):
            _add(below, value)


def _arguments_of_an_experiment() -> list[str]:
    """Read from its source: what it imports takes seconds."""
    for node in ast.walk(ast.parse(_EXPERIMENT.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == "Experiment":
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                    return [argument.arg for argument in (*each.args.args[1:], *each.args.kwonlyargs)]
    return []
