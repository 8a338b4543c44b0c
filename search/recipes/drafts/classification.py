"""A recipe for pictures with a sub-folder for each class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from search.recipes.drafts.draft import (
    Draft,
    batch_size_for,
    epochs_for,
    leave_out,
    left_out_lines,
    name_of,
    quoted,
    table,
    told,
    unequal,
)

_IN_MEMORY = 2 * 2**30
"""Bytes of small pictures; more are read from disk again and again (assumed: what a laptop can spare)."""


def draft_classification(folder: Path, skip_broken: bool = False) -> Draft:
    """A search for a classifier of somebody's own pictures.

    Args:
        folder: has a sub-folder a class, or ``train`` and ``val`` with such.
        skip_broken: leave out what cannot be read.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has another layout, a class is empty, or a picture cannot be read.
    """
    from datamodules.class_folders import FOLD, divide
    from datamodules.examination import examine

    seen = examine(divide(folder).files)
    left_out = leave_out(folder, seen, skip_broken)
    found = divide(folder, left_out=left_out)
    train, val = ([len(of_class) for of_class in split] for split in (found.train, found.val))
    if found.val_folder is None:
        split = f"every {FOLD}th picture of each class, for there is no folder for validation"
    else:
        split = f"those in '{found.val_folder.relative_to(folder)}'"
    facts = [
        f"{sum(train):,} pictures to train on and {sum(val):,} for validation: {split}",
        *(
            [f"'{found.test_folder.relative_to(folder)}' is {'for a report alone' if found.test else 'left aside'}"]
            if found.test_folder
            else []
        ),
        seen.in_words,
        *table({"train": train, "val": val}, found.names),
        f"Calling everything '{found.names[val.index(max(val))]}' is right of {100 * max(val) / sum(val):.1f} %.",
    ]
    amiss = [*told(left_out), *unequal(found.names, train, "pictures to train on")]
    amiss += [
        f"class '{name}' has no picture for validation" for name, n in zip(found.names, val, strict=True) if not n
    ]
    amiss += _passed_over(folder)
    return Draft(tuple(facts), tuple(amiss), _body(folder, sum(train), sum(train) + sum(val), seen.median[1], left_out))


def _passed_over(folder: Path) -> list[str]:
    """A line about files that are no pictures by their names."""
    from datamodules.pictures import SUFFIXES

    others = Counter(
        path.suffix.lower() or "no ending"
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and not path.name.lower().endswith(SUFFIXES)
    )
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    return [f"files that do not end in {', '.join(SUFFIXES)} are passed over: {kinds}"] * bool(others)


def _body(folder: Path, train: int, images: int, side: int, left_out: list[str]) -> str:
    resolution = 16 if side < 24 else 32 if side < 96 else 64
    batch_size = batch_size_for(train, 128)
    epochs = epochs_for(train, batch_size, 600, 8, 40)
    steps = epochs * max(1, train // batch_size)
    if images * 3 * resolution**2 <= _IN_MEMORY:
        data, more = (
            "SmallPicturesDataModule",
            "          flip: true  # false where a mirrored picture is another thing, as with letters\n",
        )
    else:
        data, more = (
            "ImageFolderDataModule",
            "          threads: 2  # that decode pictures; they are too many for memory\n",
        )
    return f"""\
description: >
  Which of NAS-Bench-201's networks tells the classes of {quoted(folder.resolve().name)} apart best?
space: NASBench201
targets:
  {name_of(folder)}:
    class_path: TrainedTask
    init_args:
      data:
        class_path: {data}
        init_args:
          root: {quoted(str(folder))}  # looked for where you run this, then in $CATCHMARK_DATA
          resolution: {resolution}  # pixels; a picture's shorter side has about {side}. Twice as many cost fourfold
          batch_size: {batch_size}
{more}{left_out_lines(left_out, 10)}\
      # About {steps:,} steps; the best network can be trained longer afterwards:
      # catchmark train RUN --epochs {4 * epochs}
      epochs: {epochs}
      build: {{channels: 16, cells: 1}}  # the benchmark's own networks have 5 cells a stage
agents:
  # Starts from weights that ship, meta-trained on other pictures.
  catch: {{class_path: BayesianCATCHer, init_args: {{init: pretrained}}}}
  # random: RandomSearch  # to compare with, at as many networks again
budget: 20  # networks that are trained
"""
