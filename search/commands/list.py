"""``catchmark list``."""

from __future__ import annotations

import argparse
import textwrap

HELP = "Name what there is: recipes, spaces, tasks, pools, agents, attributes, path samplers and tables."
EXAMPLE = "catchmark list"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(chosen: argparse.Namespace) -> int:
    """Print them, a line each."""
    from lightning_modules.path_samplers.base import PathSampler
    from search.agents.base import Agent
    from search.attributes.base import Attribute
    from search.recipes.catalogue import find_classes
    from search.recipes.recipe import RECIPES, read_recipe
    from search.runs.folders import shown_path
    from search.spaces.base import SearchSpace
    from search.tables import SHIPPED
    from search.tasks.base import Task, TaskPool

    lines = ["recipes"]
    for path in sorted(RECIPES.glob("**/*.yaml")):
        recipe = read_recipe(path)
        description = " ".join(str(recipe.get("init_args", recipe).get("description", "")).split())
        lines.append(f"  {shown_path(path):<40} {textwrap.shorten(description, 100, placeholder=' ...')}".rstrip())
    for title, packages, base in [
        ("spaces", "search.spaces", SearchSpace),
        ("tasks", "search.tasks search.studies", Task),
        ("task pools", "search.tasks", TaskPool),
        ("agents", "search.agents", Agent),
        ("attributes", "search.attributes", Attribute),
        ("path samplers", "lightning_modules.path_samplers", PathSampler),
    ]:
        lines.append(title)
        classes = {name: found for each in packages.split() for name, found in find_classes(each, base).items()}
        for name, found in sorted(classes.items()):
            lines.append(f"  {name:<24} {(found.__doc__ or '').strip().splitlines()[0]}")
    lines += ["tables", *(f"  {name:<28} {holds}" for name, holds in SHIPPED.items())]
    print("\n".join(lines))
    return 0
