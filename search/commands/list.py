"""``catchmark list``."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator

HELP = (
    "Name what there is: recipes, spaces, tasks, agents and whatever else a recipe can name; or describe one of them."
)
EXAMPLE = "catchmark list TrainedTask"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to describe."""
    parser.add_argument("name", nargs="?", help="a class: what it is, and its arguments, as a recipe gives them")


def run(chosen: argparse.Namespace) -> int:
    """Print a line for each, or one with its arguments."""
    print("\n".join(_everything() if chosen.name is None else _one(chosen.name)))
    return 0


def _kinds() -> dict[str, dict[str, type]]:
    """Classes by their names, by what they are."""
    from pytorch_lightning import LightningDataModule

    from lightning_modules.path_samplers.base import PathSampler
    from search.agents.base import Agent
    from search.attributes.base import Attribute
    from search.executors.base import Executor
    from search.recipes.catalogue import find_classes
    from search.rewards.base import RewardTerm
    from search.spaces.base import SearchSpace
    from search.studies.base import Study
    from search.tasks.base import Task, TaskPool

    kinds: list[tuple[str, str, type]] = [
        ("spaces", "search.spaces", SearchSpace),
        ("tasks", "search.tasks search.studies", Task),
        ("task pools", "search.tasks", TaskPool),
        ("agents", "search.agents", Agent),
        ("attributes", "search.attributes", Attribute),
        ("reward terms", "search.rewards", RewardTerm),
        ("path samplers", "lightning_modules.path_samplers", PathSampler),
        ("data modules", "datamodules", LightningDataModule),
        ("executors", "search.executors", Executor),
        ("studies", "search.studies", Study),
    ]
    return {
        title: {name: found for each in packages.split() for name, found in find_classes(each, base).items()}
        for title, packages, base in kinds
    }


def _everything() -> Iterator[str]:
    from search.recipes.recipe import RECIPES, read_recipe
    from search.runs.folders import shown_path
    from search.tables import SHIPPED

    yield "recipes"
    for path in sorted(RECIPES.glob("**/*.yaml")):
        recipe = read_recipe(path)
        description = " ".join(str(recipe.get("init_args", recipe).get("description", "")).split())
        yield f"  {shown_path(path):<40} {textwrap.shorten(description, 100, placeholder=' ...')}".rstrip()
    for title, classes in _kinds().items():
        yield title
        for name, found in sorted(classes.items()):
            yield f"  {name:<24} {(found.__doc__ or '').strip().splitlines()[0]}"
    yield "tables"
    yield from (f"  {name:<28} {holds}" for name, holds in SHIPPED.items())


def _one(name: str) -> Iterator[str]:
    import json

    from search.errors import CatchmarkError, nearest
    from search.recipes.classes import shipped_classes
    from search.recipes.described import describe_arguments, first_lines, type_in_words

    found = [(f"{title}: ", classes[name]) for title, classes in _kinds().items() if name in classes]
    if not found:  # parts of these, such as an agent's predictor
        classes = shipped_classes(object)
        if name not in classes:
            raise CatchmarkError(
                f"list: there is no class '{name}'{nearest(name, classes, words='')}; see catchmark list"
            )
        found = [("", classes[name])]
    for title, owner in found:
        yield f"{title}{owner.__module__}.{owner.__qualname__}"
        yield from textwrap.wrap(first_lines(owner), 100)
        # A recipe gives no argument that whoever builds it gives: the space, and of an agent trials and seed.
        arguments, open_ended = describe_arguments(owner, _GIVEN.get(title.removesuffix(": "), 0))
        for each in arguments:
            default = "" if each.required else f" = {json.dumps(each.default, default=_plain)}"
            yield f"  {each.name}{default}  ({type_in_words(each.annotation) or 'anything'})"
            yield from textwrap.wrap(each.described, 96, initial_indent="      ", subsequent_indent="      ")
        if open_ended:
            yield "  and arguments of the classes that it hands them to"
        if not arguments:
            yield "  it has no arguments"


_GIVEN = {"tasks": 1, "task pools": 1, "agents": 3, "attributes": 1, "reward terms": 1}
"""How many of the first arguments of a class a recipe does not give."""


def _plain(default: object) -> object:
    """A default that JSON has no word for."""
    return sorted(default) if isinstance(default, frozenset | set) else str(default)
