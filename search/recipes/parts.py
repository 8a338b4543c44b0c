"""Builds one part of a recipe by itself: a space, a task, a module."""

from __future__ import annotations

from typing import Any

from search.errors import CatchmarkError, one_line
from search.recipes.check import RecipeCheck, new_parser
from search.recipes.trust import RECIPE, Trust
from search.recipes.words import explain


def build_part(described: Any, annotation: Any, key: str, trust: Trust = RECIPE) -> tuple[Any, Any]:
    """Build what a part of a recipe describes, by the rules of whole recipes (`search.recipes.recipe`).

    Args:
        described: ``class_path`` and ``init_args``, or the bare name of a class.
        annotation: the type that is asked for; of ``Callable[[SearchSpace], Task]`` the recipe leaves out the space.
        key: where it stands, for messages.
        trust: what it may name.

    Returns:
        The object, or what makes it given the arguments left out; and the description with every default.

    Raises:
        CatchmarkError: the description is wrong; one line that names the key, the value and what is allowed.
    """
    import yaml
    from jsonargparse import ArgumentError

    checked = RecipeCheck(trust).value(described, annotation, key)
    parser = new_parser()
    parser.add_argument("--part", type=annotation)
    try:
        config = parser.parse_object({"part": checked})
        resolved = yaml.safe_load(parser.dump(config, skip_unset=False))["part"]
        with trust.held():
            return parser.instantiate(config).part, resolved
    except (ArgumentError, ValueError, TypeError) as error:
        raise CatchmarkError(f"{key}: {one_line(error)}") from error
    except CatchmarkError:
        raise
    except Exception as error:
        raise CatchmarkError(f"{key}: {explain(error)}") from error
