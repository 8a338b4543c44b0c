"""Builds what a recipe, or a part of one, describes; what was built knows its description."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

from search.errors import CatchmarkError, explain, one_line
from search.recipes.check import Described, RecipeCheck
from search.recipes.parts import Part, parse_part
from search.recipes.trust import RECIPE, Trust
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.tasks.base import Task

_descriptions: dict[int, Any] = {}
"""By the numbers of the objects that are there."""


def build(described: Any, annotation: Any, key: str, trust: Trust = RECIPE, given: Sequence[Any] = ()) -> Any:
    """Build what a part of a recipe describes, by the rules of whole recipes (`search.recipes.recipe`).

    Args:
        described: ``class_path`` and ``init_args``, or the bare name of a class.
        annotation: the type that is asked for; of ``Callable[[SearchSpace], Task]`` the recipe leaves out the space.
        key: where it stands, for messages.
        trust: what it may name.
        given: the arguments that the recipe leaves out, where it leaves out any.

    Returns:
        The object, of which `description_of` knows the description with every default.

    Raises:
        CatchmarkError: the description is wrong; one line that names the key, the value and what is allowed.
    """
    check = RecipeCheck(trust)
    part = check.described(check.value(described, annotation, key))
    assert part is not None, f"{annotation} is no class"
    with trust.held():
        built, description = _build(parse_part(part, check), check)
    if given:
        built = built(*given)
    _note(built, description)
    return built


def build_study(checked: dict[str, Any], check: RecipeCheck, owner: type[Study]) -> Study:
    """Build what a whole recipe describes.

    Args:
        checked: the arguments of the study.
        check: which has checked them.
        owner: the class of the study.

    Returns:
        The study; its `Study.recipe` are the arguments with every default, and `description_of` knows its space, its
        tasks and its ground truth.

    Raises:
        CatchmarkError: a value is wrong; one line that names the key, the value and what is allowed.
    """
    study: Study
    study, recipe = _build(parse_part(Described(owner, None, checked, ""), check), check)
    study.recipe = recipe
    _note(study.space, recipe["space"])
    for name, task in study.targets.items() if isinstance(study, Experiment) else ():
        _note(task, recipe["targets"][name])
    if isinstance(truth := getattr(study, "truth", None), Task):
        _note(truth, recipe["truth"])
    return study


def description_of(built: object) -> dict[str, Any]:
    """What described an object, with every default: ``class_path`` and ``init_args``.

    Raises:
        CatchmarkError: no recipe described it; something else has made it.
    """
    if id(built) not in _descriptions:
        raise CatchmarkError(f"this {type(built).__name__} is not described by a recipe")
    return _descriptions[id(built)]


def _build(part: Part, check: RecipeCheck) -> tuple[Any, Any]:
    """What a part of a recipe describes, and its description with every default."""
    from jsonargparse import ArgumentError

    def construct(owner: type, *arguments: Any, **options: Any) -> Any:
        """Make an object of the recipe; what it refuses is said with its key."""
        with warnings.catch_warnings(record=True) as warned:
            try:
                made = owner(*arguments, **options)
            except CatchmarkError:
                raise
            except (Exception, SystemExit) as error:
                at = check.key_of(owner, options)
                raise CatchmarkError(f"{at}: {explain(error)}" if at else explain(error)) from error
        for warning in warned:  # a failure is told in one line; otherwise they are none of our business
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return made

    try:
        description = part.description()
        return part.make(construct), description
    except CatchmarkError:
        raise
    except (ArgumentError, ValueError, TypeError) as error:
        at = part.described.key
        raise CatchmarkError(f"{at}: {one_line(error)}" if at else one_line(error)) from error


def _note(built: object, description: Any) -> None:
    """Know by what an object was described, and the tasks inside of a task by the arguments that describe them."""
    if not isinstance(description, dict) or "class_path" not in description:
        return
    weakref.finalize(built, _descriptions.pop, id(built), None).atexit = False
    _descriptions[id(built)] = description
    if isinstance(built, Task):
        arguments = description.get("init_args") or {}
        for name, inner in built.parts().items():
            _note(inner, arguments.get(name))
