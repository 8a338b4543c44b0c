"""The command ``catchmark``.

Nothing heavy is imported before a command is chosen, so that ``catchmark --help`` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from search.errors import CatchmarkError, one_line

_FLAGS = ("-h", "--help", "--dry-run", "--quiet")
_OPTIONS = ("--resume", "--runs")
"""What ``catchmark run`` keeps for itself; every other ``--key`` replaces a value of the recipe."""
_TRUST = "--trust"
"""Kept as well, but never taken for what was meant: SupernetStudy has a value ``truth``."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        raise CatchmarkError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 could not go on, 2 wrong input, 130 interrupted."""
    _prepare_streams()
    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()  # a reader that is gone is noticed here, not at exit
        return code
    except CatchmarkError as error:
        _say(one_line(error))
        code = error.exit_code
    except KeyboardInterrupt:
        _say("stopped")
        code = 130
    except BrokenPipeError:  # whoever read the output, as in `catchmark list | head`, has seen enough
        code = 1
    except OSError as error:
        from search.recipes.words import explain

        _say(explain(error))
        code = 1
    _let_go_of_output()
    return code


def _prepare_streams() -> None:
    """Let output be written whatever a terminal can show, and nothing else be written where one should be."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file to be opened would be taken for a standard stream
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # there is none, it is closed, or it is no file
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _say(line: str) -> None:
    """A line on standard error, where there is one to be read."""
    with suppress(OSError, ValueError, AttributeError):
        print(f"catchmark: {line}", file=sys.stderr, flush=True)


def _let_go_of_output() -> None:
    """Where the output can't be written, see that nothing is left to flush at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(words: list[str]) -> int:
    parser = _parser()
    overrides: dict[str, str] = {}
    if words[:1] == ["run"]:
        rest, overrides = _split(words[1:])
        words = ["run", *rest]
    chosen = parser.parse_args(words)
    if chosen.command is None:
        parser.print_help()
        return 2
    # Where the user names neither recipe nor class, nothing is imported from here: it may have come with the run.
    _place_current_folder(wanted=any(getattr(chosen, name, None) for name in ("recipe", "task", "trust")))
    if chosen.command == "run":
        return _run(chosen, overrides)
    return chosen.function(chosen)


def _place_current_folder(wanted: bool) -> None:
    """A recipe may name classes in modules of the current folder.

    It comes last, for a module there must not hide an installed one: Python may have put it first, and an editable
    install comes behind all of the path, here and in processes that are started later.

    Args:
        wanted: whether anything may be imported from there at all.
    """
    try:
        here = os.getcwd()
    except OSError as error:
        raise CatchmarkError(f"the current folder is gone ({error.strerror}); change to another one") from error
    ours = str(Path(__file__).resolve().parents[1])
    if here != ours:
        sys.path[:] = [each for each in sys.path if each not in ("", here)]
    sys.path += [each for each in (ours, here)[: 1 + wanted] if each not in sys.path]


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words of ``catchmark run``, in any order: what argparse is to read, and the recipe's values to replace."""
    rest: list[str] = []
    overrides: dict[str, str] = {}
    recipe: str | None = None
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        follows = waiting[0] if waiting and not waiting[0].startswith("--") else None
        if word in _FLAGS or (equals and name in (*_OPTIONS, _TRUST)):
            rest.append(word)
        elif word in (*_OPTIONS, _TRUST):
            if word == "--resume" and (follows is None or Path(follows).suffix in (".yaml", ".yml")):
                rest.append("--resume=latest")  # what follows is the recipe, not the run
            elif follows is not None:
                rest.append(f"{word}={waiting.pop(0)}")
            else:
                raise CatchmarkError(f"{word} needs a value, as in {word} VALUE")
        elif name in _FLAGS:
            raise CatchmarkError(f"{name} takes no value")
        elif name.startswith("--") and name != "--":
            if not equals:
                if follows is None:
                    raise CatchmarkError(f"{word} needs a value, as in {word} VALUE{_option_meant(name)}")
                value = waiting.pop(0)
            if near := _option_meant(name):
                raise CatchmarkError(f"{name} is not an option{near}")
            overrides[name[2:]] = value
        elif recipe is not None or word.startswith("-"):
            raise CatchmarkError(f"'{word}' stands alone; a value of the recipe is replaced with --key value")
        else:
            recipe = word
            rest.append(word)
    return rest, overrides


def _option_meant(name: str) -> str:
    near = difflib.get_close_matches(name, [*_FLAGS[1:], *_OPTIONS], n=1, cutoff=0.8)
    return f"; did you mean '{near[0]}'?" if near else ""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="catchmark",
        description="Neural architecture search experiments: one YAML recipe, one report.",
        epilog="Start here: catchmark run experiments/quickstart.yaml",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(  # type: ignore[no-untyped-def]
        name: str, function, help: str, example: str, more: str = "", usage: str | None = None
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=help, description=f"{help} {more}", epilog=f"Example: {example}", usage=usage, allow_abbrev=False
        )
        sub.set_defaults(function=function)
        return sub

    def trusting(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            _TRUST,
            action="append",
            default=[],
            metavar="NAME",
            help="a class, module or package of yours that the run's folder may name, which is data and can name "
            "catchmark's own only; may be given several times",
        )

    run = command(
        "run",
        None,
        "Run a recipe, or go on with a run that was stopped.",
        "catchmark run experiments/quickstart.yaml --budget 10 --agents.catch_meta.settings.candidates 40",
        "Classes that a recipe names by import path are looked for among the installed packages and in the current "
        "folder.",
        usage="catchmark run RECIPE [--KEY VALUE ...] [--resume [RUN]] [--runs FOLDER] [--trust NAME] [--dry-run] "
        "[--quiet]",
    )
    run.add_argument("recipe", nargs="?", help="a YAML file; 'catchmark list' names those that ship")
    keys = run.add_argument_group("values of the recipe")
    keys.add_argument(
        "--KEY",
        metavar="VALUE",
        dest="_",
        help="replaces a value by its dotted key, as YAML; 'init_args' may be left out of the key, and --agent.NAME "
        "is for every agent that takes NAME",
    )
    run.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="RUN",
        help="go on with the run in this folder, for which no recipe need be named, or with the recipe's latest run",
    )
    run.add_argument("--runs", default="runs", metavar="FOLDER", help="where run folders go (default: %(default)s)")
    trusting(run)
    run.add_argument("--dry-run", action="store_true", help="check and print the resolved recipe, run nothing")
    run.add_argument("--quiet", action="store_true", help="no progress bar")

    train = command(
        "train",
        _train,
        "Train the best architecture that a run found in full, or go on with that, and keep its weights.",
        "catchmark train runs/quickstart/latest --epochs 100",
        "The training is that of the target's own task, or of a YAML file with the class_path and init_args of a "
        "TrainedTask.",
    )
    train.add_argument("folder", type=Path, metavar="RUN", help="a run's folder")
    train.add_argument("--target", metavar="NAME", help="which of the run's targets; needed where it has several")
    train.add_argument("--agent", metavar="NAME", help="the best of this agent, instead of the best of all")
    train.add_argument("--architecture", metavar="STRING", help="this architecture instead")
    train.add_argument("--front", action="store_true", help="every network on the Pareto front of the objectives")
    train.add_argument("--task", type=Path, metavar="FILE", help="how to train; needed where the target is a table")
    train.add_argument("--epochs", type=int, metavar="N", help="in place of the task's")
    train.add_argument(
        "--out", type=Path, metavar="FOLDER", help="in place of RUN/trained/TARGET, or of RUN/front/TARGET"
    )
    train.add_argument("--seed", type=int, metavar="N", help="in place of the run's")
    trusting(train)
    train.add_argument("--quiet", action="store_true", help="no progress bar")

    export = command(
        "export",
        _export,
        "Write a trained network as a file for other programs, and check what was written.",
        "catchmark export runs/quickstart/latest --format onnx",
        "The network must have been trained with 'catchmark train'.",
    )
    export.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, or that of a trained network")
    export.add_argument("--target", metavar="NAME", help="which of the trained networks, where there are several")
    export.add_argument(
        "--format",
        choices=("onnx", "torch"),
        default="onnx",
        help="ONNX, or torch.export's .pt2 (default: %(default)s)",
    )
    export.add_argument(
        "--part",
        choices=("network", "backbone"),
        help="default: the network where it classifies, else its backbone with an output for each feature map",
    )
    export.add_argument("--out", type=Path, metavar="FILE", help="default: beside the weights")
    export.add_argument("--resolution", type=int, metavar="N", help="of the images; default: as in training")
    export.add_argument("--batch", default="dynamic", metavar="N", help="images a pass, or 'dynamic' (the default)")
    trusting(export)

    report = command("report", _report, "Write a run's report again.", "catchmark report runs/quickstart/latest")
    report.add_argument("folder", type=Path, help="a run's folder")
    trusting(report)

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
        "Convert a benchmark or an image set you have into the project's own format.",
        "catchmark data nasbench201 NATS-tss-v1_0-3ffb9-simple --out nasbench201.npz",
    )
    _add_converters(data)

    words = "Name what there is: recipes, spaces, tasks, pools, agents, path samplers and tables."
    command("list", _list, words, "catchmark list")
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
        sub.add_argument(
            "--out", type=Path, default=Path(f"{name}.npz"), help=f"the {converter.makes} file (default: %(default)s)"
        )
        for option in converter.options:
            shown = "" if option.default is None else " (default: %(default)s)"
            sub.add_argument(f"--{option.name}", type=int, default=option.default, help=option.help + shown)


def _run(chosen: argparse.Namespace, overrides: dict[str, str]) -> int:
    if chosen.recipe is None and chosen.resume in (None, "latest"):
        raise CatchmarkError("run: which recipe? For example: catchmark run experiments/quickstart.yaml")
    from search.commands.run import run_recipe

    return run_recipe(
        None if chosen.recipe is None else Path(chosen.recipe),
        overrides,
        runs=Path(chosen.runs),
        resume=chosen.resume,
        dry_run=chosen.dry_run,
        quiet=chosen.quiet,
        trust=chosen.trust,
    )


def _train(chosen: argparse.Namespace) -> int:
    from search.commands.train import in_words, train_found

    more = {"task_file": chosen.task, "epochs": chosen.epochs, "seed": chosen.seed}
    more |= {"quiet": chosen.quiet, "trust": chosen.trust}
    if chosen.front:
        return _train_front(chosen, more)
    folder = train_found(
        chosen.folder, chosen.target, chosen.agent, architecture=chosen.architecture, out=chosen.out, **more
    )
    if folder is not None:
        print(in_words(folder))
    return 0


def _train_front(chosen: argparse.Namespace, more: dict[str, Any]) -> int:
    from search.commands.train import train_found
    from search.deploy.choice import settled
    from search.deploy.front import read_front, train_front
    from search.recipes.trust import trust_of

    if chosen.agent or chosen.architecture:
        raise CatchmarkError("--front: it is that of all agents, so neither --agent nor --architecture goes with it")
    front = read_front(run := settled(chosen.folder), chosen.target, trust_of(chosen.trust))

    def train(architecture: str, out: Path) -> Path | None:
        return train_found(run, front.target, architecture=architecture, out=out, **more)

    page = train_front(run, front, train, chosen.out)
    if page is not None:
        print(f"{len(front.points)} networks\nreport:  {page}")
    return 0


def _export(chosen: argparse.Namespace) -> int:
    from search.deploy.export import export_network, in_words

    if chosen.batch != "dynamic" and not chosen.batch.isdecimal():
        raise CatchmarkError(f"--batch is '{chosen.batch}', a number of images is needed, or dynamic")
    exported = export_network(
        chosen.folder,
        target=chosen.target,
        form=chosen.format,
        part=chosen.part,
        out=chosen.out,
        resolution=chosen.resolution,
        batch="dynamic" if chosen.batch == "dynamic" else int(chosen.batch),
        trust=chosen.trust,
    )
    print(in_words(exported))
    return 0


def _report(chosen: argparse.Namespace) -> int:
    from search.commands.run import rewrite_report

    print(rewrite_report(chosen.folder, chosen.trust))
    return 0


def _compare(chosen: argparse.Namespace) -> int:
    from search.reports.comparison import render_text, write_html
    from search.results.comparison import compare_runs

    comparison = compare_runs(chosen.folders)
    print(render_text(comparison))
    if chosen.html is not None:
        write_html(comparison, chosen.html)
        print(f"page: {chosen.html}")
    return 0


def _data(chosen: argparse.Namespace) -> int:
    from search.tables import CONVERTERS

    converter = CONVERTERS[chosen.converter]
    options = {option.name: getattr(chosen, option.name) for option in converter.options}
    print(f"{converter.makes}: {converter.convert(chosen.source, chosen.out, **options)}")
    return 0


def _list(chosen: argparse.Namespace) -> int:
    from search.commands.run import list_everything

    print(list_everything())
    return 0


if __name__ == "__main__":
    sys.exit(main())
