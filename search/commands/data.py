"""``catchmark data``."""

from __future__ import annotations

import argparse
from pathlib import Path

from search.tables import CONVERTERS

HELP = "Convert a benchmark or an image set you have into the project's own format."
EXAMPLE = "catchmark data nasbench201 NATS-tss-v1_0-3ffb9-simple --out nasbench201.npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A command of its own for each converter."""
    names = parser.add_subparsers(dest="converter", metavar="BENCHMARK", required=True)
    for name, converter in CONVERTERS.items():
        sub = names.add_parser(
            name, help=converter.help, description=converter.help, epilog=f"Example: {converter.example}"
        )
        sub.add_argument(
            "source", type=Path, nargs=None if converter.source_required else "?", help=converter.source_help
        )
        sub.add_argument(
            "--out", type=Path, default=Path(f"{name}.npz"), help=f"the {converter.makes} file (default: %(default)s)"
        )
        for option in converter.options:
            shown = "" if option.default is None else " (default: %(default)s)"
            sub.add_argument(f"--{option.name}", type=option.type, default=option.default, help=option.help + shown)


def run(chosen: argparse.Namespace) -> int:
    """Convert."""
    converter = CONVERTERS[chosen.converter]
    options = {option.name: getattr(chosen, option.name) for option in converter.options}
    made = converter.convert(chosen.source, chosen.out, **options)
    print(f"{converter.makes}: {made}")
    if converter.makes == "images":
        from search.recipes.drafts.arrays import about_images
        from search.recipes.drafts.draft import plain

        print(*(plain(line, spaces=True) for line in about_images(made)), sep="\n")
    return 0
