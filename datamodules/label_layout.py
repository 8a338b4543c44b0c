"""Which folders hold pictures, which the label maps of these, and what the names of either end in."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from datamodules.class_folders import split_of
from datamodules.pictures import SUFFIXES

_LABELS = (
    *("labels", "label", "labelmaps", "masks", "mask", "annotations", "annotation", "annots", "annot"),
    *("gt", "gtfine", "groundtruth", "segmentation", "segmentationclass", "segmentations", "targets"),
)
"""What people call folders of label maps."""
_PICTURES = ("images", "image", "imgs", "img", "pictures", "photos", "jpegimages", "leftimg", "rgb", "input", "inputs")
"""What they call folders of pictures, where they have a name of their own."""


class LabelledFolders(NamedTuple):
    """One split, with paths below the folder of the data set.

    Attributes:
        pictures: the folder of pictures.
        labels: that of their label maps.
        label_suffix: how the names of label maps go on where those of pictures end.
    """

    pictures: str
    labels: str
    label_suffix: str


def find_label_folders(folder: Path) -> tuple[LabelledFolders, LabelledFolders]:
    """What to train on and what to validate with; twice the same where there are no splits.

    Args:
        folder: of the data set. Folders of label maps are told by a word such as ``labels`` or ``masks`` in their path,
            splits by a word such as ``train`` or ``val``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there are no pictures or no label maps, or several folders for one thing.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder '{folder}'")
    pictures: dict[str | None, set[str]] = {}
    labels: dict[str | None, set[str]] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(name.lower().endswith(SUFFIXES) for name in names):
            path, split, is_label = _meaning(Path(place).relative_to(folder))
            (labels if is_label else pictures).setdefault(split, set()).add(path)
    if not pictures:
        raise ValueError(f"{folder} has no folder of pictures ({', '.join(SUFFIXES)})")
    if not labels:
        raise ValueError(
            f"{folder} has pictures in {_listed(set().union(*pictures.values()))} but no folder of label maps; call it "
            "'labels' or 'masks'"
        )
    held_out = next((split for split in ("val", "test") if split in pictures), None)
    if "train" not in pictures and held_out is not None and None not in pictures:
        raise ValueError(f"{folder} has pictures for '{held_out}' but none in a folder 'train'")
    train = "train" if "train" in pictures else None
    first = _pair(folder, pictures, labels, train)
    return first, first if train is None or held_out is None else _pair(folder, pictures, labels, held_out)


def _meaning(path: Path) -> tuple[str, str | None, bool]:
    """A folder's path as far down as its names mean something, its split, and whether it is of label maps."""
    split, is_label, last = None, False, 1
    for depth, part in enumerate(path.parts, start=1):
        name = part.lower()
        words = set(re.findall("[a-z]+", name))
        ending = next((each for each in _LABELS if name.endswith(each) and split_of(name[: -len(each)])), "")
        found = split_of(part) or split_of(name.removesuffix(ending))
        labelled = bool(words & set(_LABELS) or ending)
        if found or labelled or words & set(_PICTURES):
            last = depth
        split, is_label = found or split, is_label or labelled
    return Path(*path.parts[:last]).as_posix(), split, is_label


def _pair(
    folder: Path, pictures: dict[str | None, set[str]], labels: dict[str | None, set[str]], split: str | None
) -> LabelledFolders:
    there = pictures[split]
    named = {path for path in there if set(re.findall("[a-z]+", path.lower())) & set(_PICTURES)}
    chosen = _only(folder, named or there, "pictures", split)
    maps = _only(folder, labels.get(split) or labels.get(None) or set(), "label maps", split)
    return LabelledFolders(chosen, maps, _label_suffix(folder / chosen, folder / maps))


def _only(folder: Path, paths: Collection[str], what: str, split: str | None) -> str:
    purpose = f" for '{split}'" if split else ""
    if not paths:
        raise ValueError(f"{folder} has no folder of {what}{purpose}")
    if len(paths) > 1:
        raise ValueError(f"{folder} has {len(paths)} folders of {what}{purpose}: {_listed(paths)}; leave one of them")
    return next(iter(paths))


def _listed(paths: Collection[str]) -> str:
    shown = ", ".join(f"'{path}'" for path in sorted(paths)[:4])
    return shown if len(paths) <= 4 else f"{shown} and {len(paths) - 4} others"


def _label_suffix(pictures: Path, labels: Path) -> str:
    """What follows the name of a picture in that of its label map, most often."""
    maps = sorted(path.name for path in labels.rglob("*") if path.name.lower().endswith(SUFFIXES))
    files = (path for path in pictures.rglob("*") if labels not in path.parents)
    stems = {path.stem for path in files if path.name.lower().endswith(SUFFIXES)}
    counts: Counter[str] = Counter()
    for name in maps:
        for end in range(len(name) - 1, 0, -1):
            if name[:end] in stems:
                counts[name[end:]] += 1
                break
    return counts.most_common(1)[0][0] if counts else Path(maps[0]).suffix
