"""Builds one part of a recipe by itself: a space, a task, a module."""

from __future__ import annotations

from typing import Any

from search.errors import CatchmarkError, one_line
from search.recipes.check import RecipeCheck
from search.recipes.words import explain


def build_part(described: Any, annotation: Any, key: str) -> tuple[Any, Any]:
    """Build what a part of a recipe describes, by the rules of whole recipes (`search.recipes.recipe`).

    Args:
        described: ``class_path`` and ``init_args``, or the bare name of a class.
        annotation: the type that is asked for; of ``Callable[[SearchSpace], Task]`` the recipe leaves out the space.
        key: where it stands, for messages.

    Returns:
        The object, or what makes it given the arguments left out; and the description with every default.

    Raises:
        CatchmarkError: the description is wrong; one line that names the key, the value and what is allowed.
    """
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser

    checked = RecipeCheck().value(described, annotation, key)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=annotation)
    try:
        config = parser.parse_object({"part": checked})
        resolved = yaml.safe_load(parser.dump(config, skip_unset=False))["part"]
        return parser.instantiate(config).part, resolved
    except (ArgumentError, ValueError, TypeError) as error:
        raise CatchmarkError(f"{key}: {one_line(error)}") from error
    except CatchmarkError:
        raise
    except Exception as error:
        raise CatchmarkError(f"{key}: {explain(error)}") from error
