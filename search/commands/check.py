"""``catchmark check``: does a class of yours keep what its kind promises?"""

from __future__ import annotations

import argparse
import sys

HELP = "Check a space, agent, attribute, path sampler or task of your own against what its kind promises."
EXAMPLE = "catchmark check my_file.MyAgent"
NAMES_CODE = ("plugin",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "plugin", metavar="CLASS", help="its import path from here, as in my_file.MyAgent, or the name of one of ours"
    )


def run(chosen: argparse.Namespace) -> int:
    """Run every check on a class, a line for each; 0 if all are kept, 1 if not."""
    from search.contracts.kinds import contract_of
    from search.recipes.classes import find_class

    name = chosen.plugin
    found = find_class(name, object, "check")
    contract = contract_of(found)
    print(f"{name}: checked as {'an' if contract.kind[0] in 'aeiou' else 'a'} {contract.kind}", flush=True)
    if found.toy() is None:  # type: ignore[attr-defined]
        print("  toy() is None: it needs files that only you have; nothing was checked")
        return 1
    passed = broken = 0
    for promise, on, fault in contract.examine(found):
        if fault is None:
            passed += 1
            print(f"✓ {promise}", flush=True)
            continue
        broken += 1
        print(f"✗ {promise}\n    {f'on {on}: ' if on else ''}{fault.what}\n    cure: {fault.cure}", flush=True)
    print(f"{passed} of {passed + broken} promises are kept", file=sys.stderr if broken else sys.stdout)
    return 1 if broken else 0
