"""Reads a recipe: a YAML file that names classes and their arguments.

Two passes. `_check` walks the YAML beside the signatures of the classes it names, expands short class names, and says
in one line what is wrong where, with the nearest valid spelling. Then jsonargparse, which LightningCLI uses too, parses
types and builds the objects.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from search.catalogue import find_classes
from search.errors import CatchmarkError, one_line
from search.experiment import Experiment

RECIPES = Path(__file__).resolve().parent.parent / "experiments"
"""The folder of the recipes that ship with the package."""

_HOMES = ("search.spaces", "search.tasks", "search.agents", "datamodules", "lightning_modules")
"""Where a class may live to be named by its short name."""


def load_recipe(path: str | Path, overrides: Mapping[str, str] | None = None) -> tuple[Experiment, str]:
    """Build the experiment that a recipe describes.

    Args:
        path: the YAML file.
        overrides: values that replace the file's, by dotted key, as text in YAML: ``{"agents.catch.init_args.context":
            "zero"}``.

    Returns:
        The experiment, and the resolved recipe as YAML: with every default, enough to run it again.

    Raises:
        CatchmarkError: the recipe is wrong; one line that names the key, the value and what is allowed.
    """
    path = Path(path)
    recipe = _read(path)
    for key, text in (overrides or {}).items():
        _override(recipe, key, text)
    recipe.setdefault("name", path.stem)
    checked = _check_arguments(recipe, Experiment, "", skip=0)
    return _build(checked)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        there = [str(each) for each in sorted(RECIPES.glob("**/*.yaml"))]
        names = {Path(each).stem: each for each in there}
        raise CatchmarkError(f"recipe '{path}' is not a file{_nearest(path.stem, names, 'shipped recipes')}")
    try:
        recipe = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise CatchmarkError(f"{path} is not valid YAML: {one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise CatchmarkError(f"{path} is not a text file: {one_line(error)}") from error
    if not isinstance(recipe, dict):
        raise CatchmarkError(f"{path}: a recipe is a mapping of keys to values, this is {_kind(recipe)}")
    return recipe


def _override(recipe: dict[str, Any], key: str, text: str) -> None:
    """Replace one value of a recipe, in place. ``init_args`` may be left out of a key."""
    *parents, last = key.split(".")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CatchmarkError(f"--{key} {text}: the value is not valid YAML: {one_line(error)}") from error
    at: Any = recipe
    walked: list[str] = []
    for part in [*parents, last]:
        if isinstance(at, dict) and "class_path" in at and part not in ("class_path", "init_args"):
            at = at.setdefault("init_args", {})
        if part is last and len(walked) == len(parents):
            break
        if isinstance(at, dict) and isinstance(at.get(part), str) and at[part].rpartition(".")[2][:1].isupper():
            at[part] = {"class_path": at[part]}  # a class named without arguments gets its first
        if not isinstance(at, dict) or (part not in at and walked):
            known = at if isinstance(at, dict) else {}
            raise CatchmarkError(f"--{key}: the recipe has no '{'.'.join([*walked, part])}'{_nearest(part, known)}")
        at = at.setdefault(part, {})
        walked.append(part)
    if not isinstance(at, dict):
        raise CatchmarkError(f"--{key}: '{'.'.join(parents)}' is {_kind(at)}, it has no '{last}'")
    at[last] = value


# ---- the first pass: is it spelled right? --------------------------------------------------------------------------


def _check(value: Any, annotation: Any, key: str) -> Any:
    """The value with short class names expanded; raises the line that says what is wrong with it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, inspect.Parameter.empty) or isinstance(annotation, typing.TypeVar):
        return value
    if origin in (typing.Union, types.UnionType):
        return _check_union(value, arguments, key)
    if origin is typing.Literal:
        if value not in arguments:
            allowed = ", ".join(map(str, arguments))
            raise CatchmarkError(
                f"{key}: {value!r} is not one of: {allowed}{_nearest(str(value), map(str, arguments))}"
            )
        return value
    if origin is typing.Annotated:
        return _check(value, arguments[0], key)
    if origin is collections.abc.Callable:
        takes, result = arguments
        return _check_class(value, result, key, skip=len(takes))
    if origin in (dict, collections.abc.Mapping) or annotation is dict:
        inside = arguments[1] if arguments else Any
        mapping = _is(value, dict, "a mapping of names to values", key)
        if not mapping and key in ("agents", "targets"):
            raise CatchmarkError(f"{key}: at least one is needed")
        return {name: _check(each, inside, _join(key, name)) for name, each in mapping.items()}
    if origin in (list, tuple, collections.abc.Sequence) or annotation in (list, tuple):
        inside = arguments[0] if arguments else Any
        return [_check(each, inside, f"{key}[{k}]") for k, each in enumerate(_is(value, list, "a list", key))]
    return _check_plain(value, annotation, key)


def _check_plain(value: Any, annotation: Any, key: str) -> Any:
    if annotation is type(None):
        return _is(value, type(None), "null", key)
    if annotation is bool:
        return _is(value, bool, "true or false", key)
    if annotation is int:
        if isinstance(value, bool):
            raise CatchmarkError(f"{key}: a whole number is needed, this is {_kind(value)}")
        return _is(value, int, "a whole number", key)
    if annotation is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
            try:
                return float(value)
            except ValueError:
                pass
        if isinstance(value, bool):
            raise CatchmarkError(f"{key}: a number is needed, this is {_kind(value)}")
        return float(_is(value, (int, float), "a number", key))
    if annotation is str or annotation is Path:
        return _is(value, str, "text", key)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        if isinstance(value, dict) and "class_path" not in value:
            return _check_arguments(value, annotation, key, skip=0)
        raise CatchmarkError(f"{key}: a mapping of settings is needed, this is {_kind(value)}")
    if isinstance(annotation, type):
        return _check_class(value, annotation, key, skip=0)
    return value


def _check_union(value: Any, members: tuple[Any, ...], key: str) -> Any:
    if value is None and type(None) in members:
        return None
    problem: CatchmarkError | None = None
    for member in members:
        if member is type(None):
            continue
        try:
            return _check(value, member, key)
        except CatchmarkError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _check_class(value: Any, base: Any, key: str, skip: int) -> dict[str, Any]:
    """A class and its arguments: ``{class_path, init_args}``, or the bare name of a class that needs none.

    Args:
        value: what the recipe says.
        base: what it must be a subclass of.
        key: where it says so.
        skip: leading constructor arguments that the recipe does not give.
    """
    if isinstance(value, str):
        value = {"class_path": value}
    if not isinstance(value, dict) or not isinstance(value.get("class_path"), str):
        raise CatchmarkError(
            f"{key}: a class is needed, as 'class_path: NAME' with 'init_args: ...' below it, this is {_kind(value)}"
        )
    for name in value:
        if name not in ("class_path", "init_args"):
            raise CatchmarkError(
                f"{_join(key, name)}: beside class_path only 'init_args' is allowed; arguments of the class go below it"
            )
    found = _find_class(value["class_path"], base, f"{key}.class_path")
    arguments = value.get("init_args")
    arguments = {} if arguments is None else _is(arguments, dict, "a mapping of arguments", f"{key}.init_args")
    checked = _check_arguments(arguments, found, f"{key}.init_args", skip)
    return {"class_path": f"{found.__module__}.{found.__qualname__}", "init_args": checked}


def _find_class(path: str, base: Any, key: str) -> type:
    shipped = _shipped_classes(base)
    module_name, _, name = path.rpartition(".")
    if not module_name:
        if path in shipped:
            return shipped[path]
        raise CatchmarkError(f"{key}: there is no class '{path}'{_nearest(path, shipped, 'known')}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        near = _nearest(name, shipped, "known")
        raise CatchmarkError(f"{key}: can't import '{module_name}' ({one_line(error)}){near}") from error
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        classes = [each for each, member in vars(module).items() if inspect.isclass(member)]
        raise CatchmarkError(f"{key}: '{module_name}' has no class '{name}'{_nearest(name, classes)}")
    if isinstance(base, type) and not _is_protocol(base) and not issubclass(found, base):
        raise CatchmarkError(f"{key}: '{path}' is not a {base.__name__}; known: {', '.join(shipped) or 'none'}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise CatchmarkError(f"{key}: '{path}' is abstract, it lacks: {missing}")
    return found


def _shipped_classes(base: Any) -> dict[str, type]:
    if not isinstance(base, type) or _is_protocol(base):
        return {}
    return {name: found for home in _HOMES for name, found in find_classes(home, base).items()}


def _is_protocol(base: type) -> bool:
    return bool(getattr(base, "_is_protocol", False))


def _check_arguments(given: dict[Any, Any], owner: type, key: str, skip: int) -> dict[str, Any]:
    """Arguments of a class beside its constructor's signature."""
    parameters = list(inspect.signature(owner).parameters.values())[skip:]
    hints = typing.get_type_hints(owner.__init__)  # type: ignore[misc]
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters)
    known = {each.name: each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    for name in given:
        if name not in known and not open_ended:
            raise CatchmarkError(f"{_join(key, name)}: there is no such key{_nearest(str(name), known, 'allowed')}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise CatchmarkError(f"{_join(key, name)}: this key is missing, {owner.__name__} needs it")
    return {
        name: _check(value, hints.get(name, Any), _join(key, name)) if name in known else value
        for name, value in given.items()
    }


def _is(value: Any, wanted: Any, words: str, key: str) -> Any:
    if not isinstance(value, wanted):
        raise CatchmarkError(f"{key}: {words} is needed, this is {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "empty"}
    return names.get(type(value)) or f"{value!r}"


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _nearest(name: str, known: Iterable[str], words: str = "allowed") -> str:
    """The end of an error line: the nearest spelling, or all there is."""
    known = list(known)
    folded = {each.casefold(): each for each in known}
    if close := difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6):
        return f"; did you mean '{folded[close[0]]}'?"
    return f"; {words}: {', '.join(known)}" if known else ""


# ---- the second pass: build it -------------------------------------------------------------------------------------


def _build(recipe: dict[str, Any]) -> tuple[Experiment, str]:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, "experiment")
    try:
        config = parser.parse_object({"experiment": recipe})
        resolved = yaml.safe_load(parser.dump(config))["experiment"]
        experiment = parser.instantiate(config).experiment
    except (ArgumentError, ValueError, TypeError) as error:
        raise CatchmarkError(one_line(error).replace('"experiment.', '"')) from error
    return experiment, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
