"""``catchmark rank``: order architectures by what is known of them without training any."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search.commands import run as run_command
from search.errors import CatchmarkError

HELP = "Rank architectures by attributes such as zero-cost proxies, with no training, or go on with a ranking."
MORE = (
    "Prints the top and, where the recipe names truths, how far each attribute agrees with them; the whole table is in "
    "the run's folder. 'catchmark run' takes the same recipes."
)
EXAMPLE = "catchmark rank experiments/ranking/nasbench201_sizes.yaml --architectures 1000"
NAMES_CODE = run_command.NAMES_CODE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``catchmark run``."""
    run_command.add_arguments(parser)
    assert parser.usage is not None
    parser.usage = parser.usage.replace("catchmark run", "catchmark rank")


def rewrite(words: Sequence[str]) -> list[str]:
    """As for ``catchmark run``."""
    return run_command.rewrite(words)


def run(chosen: argparse.Namespace) -> int:
    """Run the recipe, if it is one of a ranking."""
    if chosen.recipe is None and chosen.resume in (None, "latest"):
        raise CatchmarkError(f"rank: which recipe? For example: {EXAMPLE}")
    if chosen.recipe is not None:
        from search.recipes.recipe import read_recipe

        named = str(read_recipe(Path(chosen.recipe)).get("class_path", "Experiment"))
        if named.rpartition(".")[2] != "Ranking":
            raise CatchmarkError(
                f"{chosen.recipe}: it describes {named}, not a Ranking; run it with 'catchmark run {chosen.recipe}'"
            )
    return run_command.run(chosen)
