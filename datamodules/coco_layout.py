"""Where in a folder the annotations in COCO's format lie, and the images of each."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.class_folders import split_of

_DEPTH = 3
"""So many folders down annotations and images are looked for."""
_SAMPLE = 20
"""Images of a file that are looked for, to find out in which folder they lie."""


class AnnotatedImages(NamedTuple):
    """One split.

    Attributes:
        annotations: the file, below the folder of the data set.
        images: the folder of its images, likewise.
    """

    annotations: str
    images: str


def find_coco(folder: Path) -> tuple[AnnotatedImages, AnnotatedImages]:
    """What to train on and what to validate with; twice the same where there is one file of annotations.

    Args:
        folder: of the data set. Which file is for what is told by its name or by that of its folder.

    Raises:
        FileNotFoundError: there is no such folder, or the images are not in it.
        ValueError: it has no annotations, or several for one split.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder '{folder}'")
    found: dict[str | None, list[tuple[Path, list[str]]]] = {}
    faults = {}
    for file in _below(folder, files=True):
        names = _images_of(file)
        if isinstance(names, str):
            faults[file] = names
        else:
            found.setdefault(_split(file.relative_to(folder)), []).append((file, names))
    if not found:
        told = next((f", for instance {file} ({why})" for file, why in faults.items()), "")
        raise ValueError(
            f"{folder} has no annotations in COCO's format: a .json file with images, annotations and categories is "
            f"needed, {len(faults)} others are there{told}"
        )
    train, val = found.get("train") or found.get(None), found.get("val") or found.get("test")
    if train is None:
        raise ValueError(f"{folder} has annotations for {' and '.join(map(str, found))} but none to train on")
    first = _place(folder, _only(folder, train))
    return first, first if val is None else _place(folder, _only(folder, val))


def _below(folder: Path, files: bool) -> list[Path]:
    """Files of JSON, or folders, at most `_DEPTH` down, in the order of their paths and the highest first."""
    found = [] if files else [folder]
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(Path(place).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
        if files:
            found += [Path(place, name) for name in names if name.lower().endswith(".json") and name[0] != "."]
        else:
            found += [Path(place, name) for name in folders]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _images_of(file: Path) -> list[str] | str:
    """File names of the images, or why it does not hold boxes in COCO's format."""
    try:
        content: Any = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    if not isinstance(content, dict):
        return "it is no mapping"
    for group in ("images", "annotations", "categories"):
        if not isinstance(content.get(group), list) or not content[group]:
            return f"it has no '{group}'"
    if not any(isinstance(each, dict) and "bbox" in each for each in content["annotations"]):
        return "no annotation has a 'bbox'"
    return [str(each.get("file_name")) for each in content["images"] if isinstance(each, dict)]


def _split(file: Path) -> str | None:
    """Which split a file is for, by the words of its name, or else of the folder nearest to it."""
    parts = (file.stem, *reversed(file.parts[:-1]))
    return next((split for part in parts if (split := split_of(part)) is not None), None)


def _only(folder: Path, files: Sequence[tuple[Path, list[str]]]) -> tuple[Path, list[str]]:
    """The file of boxes: COCO itself has others, of captions and of joints, beside its 'instances'."""
    boxes = [each for each in files if each[0].stem.startswith("instances")] or files
    if len(boxes) > 1:
        names = ", ".join(f"'{file.relative_to(folder)}'" for file, _ in boxes[:4])
        raise ValueError(f"{folder} has {len(boxes)} files of annotations for one split: {names}; leave one of them")
    return boxes[0]


def _place(folder: Path, found: tuple[Path, list[str]]) -> AnnotatedImages:
    """The file and the folder in which most of its images lie."""
    file, names = found
    some = names[:: max(1, len(names) // _SAMPLE)][:_SAMPLE]
    split = _split(file.relative_to(folder))
    places = [file.parent, *_below(folder, files=False)]
    hits = {place: sum((place / name).is_file() for name in some) for place in places}
    best = max(hits, key=lambda place: (hits[place], _split(place.relative_to(folder) / "x") == split))
    if not hits[best]:
        raise FileNotFoundError(f"{file}: its images, for instance '{some[0]}', are nowhere below {folder}")
    return AnnotatedImages(file.relative_to(folder).as_posix(), best.relative_to(folder).as_posix())
