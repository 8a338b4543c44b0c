"""Finds the classes that a recipe names, and what their constructors take."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
import typing
from types import ModuleType
from typing import Any

from search.errors import CatchmarkError, explain, nearest, one_line
from search.recipes.catalogue import find_classes
from search.recipes.moved import name_today, path_today
from search.recipes.trust import RECIPE, Trust, Untrusted, is_ours

_HOMES = (
    "search.spaces",
    "search.tasks",
    "search.rewards",
    "search.agents",
    "search.attributes",
    "search.executors",
    "search.studies",
    "search.training",
    "datamodules",
    "lightning_modules",
)
"""Where a class may live to be named by its short name."""

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def find_class(path: str, base: type, key: str, trust: Trust = RECIPE) -> type:
    """The class that a recipe names, by its short name if it is one of ours, else by its import path.

    Args:
        path: the name.
        base: what it must be a subclass of.
        key: where the recipe says so.
        trust: what may be imported.

    Raises:
        Untrusted: it may not be imported; nothing has been.
        CatchmarkError: there is no such class, or it is no subclass, or abstract.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name and _is_any_module(base):
        raise CatchmarkError(f"{key}: '{path}' is no import path, which a network is named by, as in my_file.MyNetwork")
    if not module_name:
        for hidden in {home.partition(".")[0] for home in _HOMES} if not trust.everything else ():
            if not is_ours(hidden):
                raise Untrusted(f"{key}: a folder '{hidden}' hides catchmark's own; run this from another folder")
        # One home after another: most recipes need none of the packages that the later ones import.
        for home in _HOMES:
            if path in (there := shipped_classes(base, home)):
                return there[path]
        if path in shipped_classes(object):
            raise CatchmarkError(f"{key}: '{path}' is no {base.__name__}{_known(base)}")
        if name_today(path) != path:
            raise CatchmarkError(f"{key}: '{path}' is called '{name_today(path)}' now")
        raise CatchmarkError(
            f"{key}: there is no {base.__name__} '{path}'{nearest(path, shipped_classes(base), 'known')}"
        )
    if path_today(path) != path:
        if trust.everything:
            today = path_today(path)
            raise CatchmarkError(
                f"{key}: '{path}' has moved, it is '{today}' now; '{today.rpartition('.')[2]}' alone does too"
            )
        path = path_today(path)  # a run's folder may be of an earlier version
        module_name, _, name = path.rpartition(".")
    trust.check_class(path, key)
    if _is_protocol(base):  # any class has that form
        trust.check(path, key)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CatchmarkError(
            f"{key}: can't import '{module_name}' ({one_line(error)}){nearest(name, shipped_classes(base), 'known')}"
        ) from error
    except (Exception, SystemExit) as error:
        raise CatchmarkError(f"{key}: importing '{module_name}' fails with {explain(error)}") from error
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        classes = [
            each
            for each, member in vars(module).items()
            if inspect.isclass(member) and member.__module__ == module.__name__ and not each.startswith("_")
        ]
        raise CatchmarkError(f"{key}: '{module_name}' has no class '{name}'{nearest(name, classes, 'it has')}")
    if not trust.vouches_for(path):  # a module of ours also holds what it imports from elsewhere
        trust.check_class(f"{found.__module__}.{found.__qualname__}", key)
    if not _is_protocol(base) and not issubclass(found, base):
        raise CatchmarkError(f"{key}: '{path}' is no {base.__name__}{_known(base)}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise CatchmarkError(f"{key}: '{path}' is abstract, it lacks: {missing}{_known(base)}")
    return found


def shipped_classes(base: type, *homes: str) -> dict[str, type]:
    """Those of ours that a recipe may name where a ``base`` is asked for, by their short names."""
    if _is_protocol(base) or _is_any_module(base):
        return {}
    return {name: found for home in homes or _HOMES for name, found in find_classes(home, base).items()}


def _known(base: type) -> str:
    names = ", ".join(shipped_classes(base))
    return f"; known: {names}" if names else ""


def _is_protocol(base: type) -> bool:
    return bool(getattr(base, "_is_protocol", False))


def _is_any_module(base: type) -> bool:
    """Whether any network or part of one is asked for: so many of ours are that none has a short name there."""
    return (base.__module__, base.__name__) == ("torch.nn.modules.module", "Module")


def find_parameters(owner: type, skip: int) -> tuple[dict[str, inspect.Parameter], dict[str, Any], bool]:
    """The arguments that a recipe may give to a class: parameters and types by name, and whether there may be others.

    A constructor with ``**kwargs`` is taken to hand them to the next constructor of its bases.

    Args:
        owner: the class.
        skip: leading constructor arguments that a recipe does not give.
    """
    signature = list(inspect.signature(owner).parameters.values())
    skipped = {each.name for each in signature[:skip]}
    known = {each.name: each for each in signature[skip:] if each.kind in _BY_NAME}
    hints = _type_hints(owner)
    open_ended = any(each.kind is each.VAR_KEYWORD for each in signature)
    for base in owner.__mro__[1:]:
        if open_ended and base is not object and "__init__" in vars(base):
            inherited = list(inspect.signature(base).parameters.values())
            for each in inherited:
                if each.kind in _BY_NAME and each.name not in skipped and each.name not in known:
                    # Not required here: the class may give it itself.
                    known[each.name] = each.replace(default=None)
                    hints[each.name] = _type_hints(base).get(each.name, Any)
            open_ended = any(each.kind is each.VAR_KEYWORD for each in inherited)
    return known, hints, open_ended


def _type_hints(owner: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner.__init__, localns=_names_for_typing(owner))  # type: ignore[misc]
    except (NameError, TypeError, AttributeError, ImportError):
        return {}  # of such a class only the keys are checked here


def _names_for_typing(owner: type) -> dict[str, Any]:
    """What the modules of a class and its bases import for annotations only, below ``if TYPE_CHECKING:``.

    Such names keep heavy packages out of a module until a recipe asks for the class, which is now.
    """
    names: dict[str, Any] = {}
    for module in {sys.modules[each.__module__] for each in owner.__mro__ if each.__module__ in sys.modules}:
        for known_as, source, name in _imports_for_typing(module):
            names[known_as] = getattr(importlib.import_module(source), name)
    return names


@functools.cache
def _imports_for_typing(module: ModuleType) -> tuple[tuple[str, str, str], ...]:
    """The imports below ``if TYPE_CHECKING:`` of a module: as what, from where, and of what; it is read once."""
    try:
        text = inspect.getsource(module)
    except (OSError, TypeError):
        return ()  # built in, or typed in by hand
    if "TYPE_CHECKING" not in text:
        return ()
    return tuple(
        (each.asname or each.name, statement.module, each.name)
        for block in ast.parse(text).body
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level
        for each in statement.names
    )
