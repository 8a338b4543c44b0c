"""``catchmark completion``: a shell that completes commands, options, recipes and the keys of a recipe."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from search.commands import find_commands

HELP = "Print what a shell needs to complete the words of catchmark."
MORE = (
    'For bash: eval "$(catchmark completion bash)" in ~/.bashrc. For zsh the same with zsh, in ~/.zshrc, behind '
    "compinit. It completes commands, options, recipes, and behind a recipe its keys, as in --agents.catch.context."
)
EXAMPLE = "catchmark completion bash >> ~/.bashrc"

BASH = r"""
_catchmark() {
    local IFS=$'\n'
    COMPREPLY=($(catchmark completion bash --words "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null))
    # Behind the part of a key or of a path the word goes on.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[./] ]]; then compopt -o nospace; fi
}
complete -o default -F _catchmark catchmark
"""
ZSH = r"""
_catchmark() {
    local -a found
    found=(${(f)"$(catchmark completion zsh --words $((CURRENT - 1)) "${words[@]}" 2>/dev/null)"})
    if (( ! ${#found} )); then _files; return; fi
    compadd -S '' -- ${(M)found:#*[./]}
    compadd -- ${found:#*[./]}
}
compdef _catchmark catchmark
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}
_RUNS_RECIPES = ("run", "rank")
"""Commands that replace values of a recipe by dotted keys."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=list(SCRIPTS), help="which shell")
    parser.add_argument(
        "--words", nargs=argparse.REMAINDER, help="asked by the script: which word is completed (from 0), and all words"
    )


def run(chosen: argparse.Namespace) -> int:
    """Print the script, or what a word may become."""
    if chosen.words is None:
        print(SCRIPTS[chosen.shell].strip())
        return 0
    place, *words = chosen.words
    typed = words[1 : int(place) + 1]  # without the name of the program
    for each in candidates(typed or [""]):
        print(each)
    return 0


def candidates(typed: Sequence[str]) -> list[str]:
    """What the last word may become; none where it is a file or anything else.

    Args:
        typed: the words behind ``catchmark``, up to the one that is completed, which may be empty.
    """
    *before, word = typed
    commands = find_commands()
    if not before:
        return _begin(word, [*commands, "--help", "--version"])
    if before[0] not in commands:
        return []
    parser = argparse.ArgumentParser(prog=before[0])
    commands[before[0]].add_arguments(parser)
    return _of_command(parser, before[0], before[1:], word)


def _of_command(parser: argparse.ArgumentParser, command: str, before: Sequence[str], word: str) -> list[str]:
    options = {name: action for action in parser._actions for name in action.option_strings}
    positionals = [action for action in parser._actions if not action.option_strings]
    given: list[str] = []
    waits: argparse.Action | None = None  # an option, for its value
    unknown = False  # a key of a recipe waits for its value
    for each in before:
        if each.startswith("--"):
            option = options.get(each)
            waits = option if option is not None and option.nargs != 0 else None
            unknown = option is None and "=" not in each
        elif waits is not None or unknown:
            waits, unknown = None, False
        else:
            given.append(each)
    if waits is not None and not (waits.nargs == "?" and word.startswith("-")):
        return _begin(word, map(str, waits.choices or ()))
    if unknown:
        return []
    first = positionals[0] if positionals else None
    if isinstance(first, argparse._SubParsersAction) and given:  # a command below the command
        below = first.choices.get(given[0])
        return [] if below is None else _of_command(below, command, before[before.index(given[0]) + 1 :], word)
    if word.startswith("-"):
        found = _begin(word, [name for name in options if name.startswith("--") and name != "--KEY"])
        if command in _RUNS_RECIPES and given and word.startswith("--"):
            found += _keys(Path(given[0]), word)
        return found
    place = min(len(given), len(positionals) - 1)
    if place < 0 or (len(given) >= len(positionals) and positionals[place].nargs not in ("+", "*")):
        return []
    if positionals[place].dest == "recipe":
        return _recipes(word)
    return _begin(word, map(str, positionals[place].choices or ()))


def _begin(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(word)]


def _recipes(word: str) -> list[str]:
    """Files and folders that the word begins; else the paths of shipped recipes whose names it begins."""
    from search.recipes.outline import RECIPES

    lead = word[: word.rfind("/") + 1]
    try:
        there = sorted(Path(lead or ".").iterdir())
    except OSError:
        there = []
    names = [f"{lead}{each.name}/" for each in there if each.is_dir() and not each.name.startswith(".")]
    names += [f"{lead}{each.name}" for each in there if each.suffix in (".yaml", ".yml")]
    found = _begin(word, names)
    if found or not word or lead:
        return found
    shipped = [each for each in sorted(RECIPES.glob("**/*.yaml")) if each.name.startswith(word)]
    return [os.path.relpath(each) if each.is_relative_to(Path.cwd()) else str(each) for each in shipped]


def _keys(recipe: Path, word: str) -> list[str]:
    """The next part of a dotted key."""
    from search.recipes.outline import recipe_keys

    lead, _, part = word[2:].rpartition(".")
    keys = recipe_keys(recipe)
    for name in lead.split(".") if lead else ():
        if name != "init_args":
            keys = keys.get(name, {})
    start = f"--{lead}." if lead else "--"
    return [f"{start}{name}{'.' if below else ''}" for name, below in keys.items() if name.startswith(part)]
