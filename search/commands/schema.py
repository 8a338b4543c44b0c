"""``catchmark schema``."""

from __future__ import annotations

import argparse

HELP = "Print the JSON schema of recipes, by which an editor completes and checks them."
MORE = (
    "Editors with a YAML language server read it where a recipe's first line names the file: "
    "# yaml-language-server: $schema=recipe.schema.json"
)
EXAMPLE = "catchmark schema > recipe.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(chosen: argparse.Namespace) -> int:
    """Print it."""
    import json

    from search.recipes.schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=1))
    return 0
