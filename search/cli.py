"""The command ``catchmark``.

Nothing heavy is imported before a command is chosen, so that ``catchmark --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from search import __version__
from search.commands import find_commands
from search.errors import CatchmarkError, explain, one_line


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
    with suppress(CatchmarkError):  # it is gone, which is nothing to whoever asks for help
        _place_current_folder(wanted=False)
    commands = find_commands()
    parser = _parser(commands)
    if words and (rewrite := getattr(commands.get(words[0]), "rewrite", None)):
        words = [words[0], *rewrite(words[1:])]
    chosen = parser.parse_args(words)
    if chosen.command is None:
        parser.print_help()
        return 2
    command = commands[chosen.command]
    # Where the user names neither recipe nor class, nothing is imported from here: it may have come with the run.
    code = ("trust", *getattr(command, "NAMES_CODE", ()))
    _place_current_folder(wanted=any(getattr(chosen, name, None) for name in code))
    return command.run(chosen)


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


def _parser(commands: Mapping[str, ModuleType]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="catchmark",
        description="Neural architecture search experiments: one YAML recipe, one report.",
        epilog="Start here: catchmark run experiments/quickstart.yaml",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"catchmark {__version__}")
    names = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in commands.items():
        command.add_arguments(
            names.add_parser(
                name,
                help=command.HELP,
                description=f"{command.HELP} {getattr(command, 'MORE', '')}",
                epilog=f"Example: {command.EXAMPLE}",
                allow_abbrev=False,
            )
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
