"""``catchmark new``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import CatchmarkError, one_line

if TYPE_CHECKING:
    from search.recipes.drafts.draft import Draft

HELP = "Look at pictures of your own and write a recipe for them, which runs as it is."
EXAMPLE = "catchmark new classification my_pictures --out my_recipe.yaml"
KINDS = {
    "classification": "a sub-folder of pictures for each class, with or without 'train' and 'val' above",
    "detection": "pictures, and their boxes in COCO's format",
    "segmentation": "pictures, and label maps under the same names in a folder such as 'labels' or 'masks'",
}
"""What can be searched for, and what the folder must have for it."""
_MARGIN = "  "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "kind", choices=list(KINDS), help="; ".join(f"{kind}: {needed}" for kind, needed in KINDS.items())
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the pictures; nothing in it is changed")
    parser.add_argument("--out", type=Path, help="the recipe (default: the folder's name with .yaml, here)")
    parser.add_argument("--skip-broken", action="store_true", help="leave out pictures that cannot be read, by name")


def run(chosen: argparse.Namespace) -> int:
    """Write the recipe, and say what was found."""
    from search.recipes.drafts.draft import name_of, plain

    folder: Path = chosen.folder
    out: Path = chosen.out or Path(f"{name_of(folder)}.yaml")
    if out.exists():
        raise CatchmarkError(f"'{out}' is there already; name another file with --out")
    try:
        draft = _draft(chosen.kind, folder, chosen.skip_broken)
    except (ValueError, OSError) as error:
        raise CatchmarkError(one_line(error)) from error
    words = ["catchmark", "new", chosen.kind, str(folder), *["--skip-broken"] * chosen.skip_broken]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(draft.text(shlex.join(words), out), encoding="utf-8")
    print(*(plain(_MARGIN + line, spaces=True) for line in draft.facts), sep="\n")
    if draft.amiss:
        print("To look at first:", *(plain(f"{_MARGIN}- {line}", spaces=True) for line in draft.amiss), sep="\n")
    print(f"recipe: {out}\ntry it: catchmark run {shlex.quote(str(out))} --tiny")
    return 0


def _draft(kind: str, folder: Path, skip_broken: bool) -> Draft:
    if kind == "classification":
        from search.recipes.drafts.classification import draft_classification as draft
    elif kind == "detection":
        from search.recipes.drafts.detection import draft_detection as draft
    else:
        from search.recipes.drafts.segmentation import draft_segmentation as draft
    return draft(folder, skip_broken)
