"""The command ``catchmark``.

Nothing heavy is imported before a command is chosen, so that ``catchmark --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import CatchmarkError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 could not go on, 2 wrong input, 130 interrupted."""
    parser = _parser()
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return 2
    if rest and chosen.command != "run":
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    try:
        return chosen.function(chosen, rest)
    except CatchmarkError as error:
        print(f"catchmark: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ncatchmark: stopped; nothing is lost, go on with --resume", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="catchmark",
        description="Neural architecture search experiments: one YAML recipe, one report.",
        epilog="Start here: catchmark run experiments/quickstart.yaml",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, function, help: str, example: str) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
        sub = commands.add_parser(name, help=help, description=help, epilog=f"Example: {example}")
        sub.set_defaults(function=function)
        return sub

    run = command(
        "run",
        _run,
        "Run a recipe, or go on with a run that was stopped.",
        "catchmark run experiments/quickstart.yaml --budget 10 --agents.catch_meta.settings.candidates 40",
    )
    run.add_argument("recipe", help="a YAML file; 'catchmark list' names those that ship")
    run.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="RUN",
        help="go on with the run in this folder, or with the recipe's latest one",
    )
    run.add_argument("--runs", default="runs", metavar="FOLDER", help="where run folders go (default: %(default)s)")
    run.add_argument("--dry-run", action="store_true", help="check and print the resolved recipe, run nothing")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.add_argument("--KEY", metavar="VALUE", dest="_", help="replace a value of the recipe, by its dotted key")

    report = command("report", _report, "Write a run's report again.", "catchmark report runs/quickstart/latest")
    report.add_argument("folder", type=Path, help="a run's folder")

    compare = command(
        "compare",
        _compare,
        "Compare runs: scores, significance, curves, differences of their recipes.",
        "catchmark compare runs/quickstart/A runs/quickstart/B --html comparison.html",
    )
    compare.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="two or more run folders")
    compare.add_argument("--html", type=Path, metavar="FILE", help="write the comparison as a page too")

    data = command(
        "data",
        _data,
        "Convert a benchmark you have into the project's table format.",
        "catchmark data nasbench201 NATS-tss-v1_0-3ffb9-simple --out nasbench201.npz",
    )
    _add_converters(data)

    command("list", _list, "Name what there is: recipes, spaces, tasks, pools and agents.", "catchmark list")
    return parser


def _add_converters(data: argparse.ArgumentParser) -> None:
    from search.tables import CONVERTERS

    names = data.add_subparsers(dest="converter", metavar="BENCHMARK", required=True)
    for name, converter in CONVERTERS.items():
        sub = names.add_parser(
            name, help=converter.help, description=converter.help, epilog=f"Example: {converter.example}"
        )
        sub.add_argument(
            "source", type=Path, nargs=None if converter.source_required else "?", help=converter.source_help
        )
        sub.add_argument("--out", type=Path, default=Path(f"{name}.npz"), help="the table (default: %(default)s)")


def _run(chosen: argparse.Namespace, rest: list[str]) -> int:
    from search.run import run_recipe

    return run_recipe(
        Path(chosen.recipe),
        _overrides(rest),
        runs=Path(chosen.runs),
        resume=chosen.resume,
        dry_run=chosen.dry_run,
        quiet=chosen.quiet,
    )


def _overrides(rest: Sequence[str]) -> dict[str, str]:
    """``--key value`` and ``--key=value`` pairs."""
    overrides: dict[str, str] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise CatchmarkError(f"'{word}' stands alone: a recipe's value is replaced with --key value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise CatchmarkError(f"--{key} needs a value")
            value = words.pop(0)
        overrides[key] = value
    return overrides


def _report(chosen: argparse.Namespace, rest: list[str]) -> int:
    from search.run import rewrite_report

    print(rewrite_report(chosen.folder))
    return 0


def _compare(chosen: argparse.Namespace, rest: list[str]) -> int:
    from search.compare import compare_runs, render_text, write_html

    comparison = compare_runs(chosen.folders)
    print(render_text(comparison))
    if chosen.html is not None:
        write_html(comparison, chosen.html)
        print(f"page: {chosen.html}")
    return 0


def _data(chosen: argparse.Namespace, rest: list[str]) -> int:
    from search.tables import CONVERTERS

    print(f"table: {CONVERTERS[chosen.converter].convert(chosen.source, chosen.out)}")
    return 0


def _list(chosen: argparse.Namespace, rest: list[str]) -> int:
    from search.run import list_everything

    print(list_everything())
    return 0


if __name__ == "__main__":
    sys.exit(main())
