"""Image data sets of the Hugging Face Hub on disk: pictures with a list of labels, or Arrow and Parquet files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.class_folders import FOLD, SPLITS, split_of
from datamodules.image_arrays import ImageArrays
from datamodules.image_folder import read_image_folder
from datamodules.npz import write_npz
from datamodules.pictures import as_rgb, opened
from search.tables.labelled_pictures import Labelled, choose_label

_LISTS = ("metadata.csv", "metadata.jsonl")
_FILE = "file_name"
_TABLES = (".parquet", ".arrow")
_NEEDED = "no metadata.csv, metadata.jsonl, .parquet or .arrow file, and no sub-folder of pictures for each class"


def convert_huggingface(
    source: Path, out: Path, resolution: int = 32, image: str | None = None, label: str | None = None
) -> Path:
    """Write an image data set as an ``.npz`` file of small square images.

    Args:
        source: the folder. It has ``metadata.csv`` or ``metadata.jsonl`` (one for all, or one in the folder of each
            split) with a column ``file_name``; or ``.parquet`` or ``.arrow`` files, whose paths name their splits; or a
            sub-folder of pictures for each class. Where nothing is for validation ``test`` takes its place, and where
            there is neither, every fifth picture of each class.
        out: the file to write.
        resolution: height and width, in pixels, to which pictures are squeezed.
        image: the column of images; None where it is ``file_name``, ``image`` or ``img``.
        label: the column of classes; None for ``label``, or the only other column.

    Raises:
        FileNotFoundError: there is no such folder, or a picture is missing.
        ValueError: it holds no such data set, a column is missing, or a picture cannot be read.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"no folder '{source}'")
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}, at least 1 pixel is needed")
    lists = [path for name in _LISTS for path in sorted(source.rglob(name))]
    tables = [path for ending in _TABLES for path in sorted(source.rglob(f"*{ending}")) if path.name[0] != "."]
    names: list[str] | None = None
    if lists:
        splits = _by_split(source, lists, lambda path: _of_list(path, image or _FILE, label))
    elif tables:
        from search.tables.arrow_files import labelled_of, names_of

        names = names_of(source, tables, label)
        splits = _by_split(source, tables, lambda path: labelled_of(path, image, label))
    elif any(path.is_dir() for path in source.iterdir()):
        return write_npz(read_image_folder(source, resolution, name=out.stem), out)
    else:
        raise ValueError(f"{source} has {_NEEDED}")
    return write_npz(_arrays(source, splits, resolution, names, out.stem), out)


def _by_split(
    source: Path, files: Sequence[Path], read: Callable[[Path], Iterator[Labelled]]
) -> dict[str, list[Labelled]]:
    """What each split has; a file whose path names no split is told apart picture by picture, where these do."""
    found: dict[str, list[Labelled]] = {}
    for file in files:
        parts = file.relative_to(source).with_suffix("").parts
        of_file = next((split for part in reversed(parts) if (split := split_of(part))), None)
        for each in read(file):
            split = of_file
            if split is None and isinstance(each.picture, Path):
                inner = each.picture.relative_to(file.parent).parts[:-1]
                split = next((name for part in inner if (name := split_of(part))), None)
            found.setdefault(split or "train", []).append(each)
    if "train" not in found:
        raise ValueError(f"{source} has {' and '.join(found)} but nothing to train on ({', '.join(SPLITS['train'])})")
    return found


def _of_list(file: Path, image: str, label: str | None) -> Iterator[Labelled]:
    """The pictures that a list names."""
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows: list[dict[str, Any]]
        try:
            rows = (
                list(csv.DictReader(stream))
                if file.suffix == ".csv"
                else [json.loads(line) for line in stream if line.strip()]
            )
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    if not rows:
        raise ValueError(f"{file} names no picture")
    column = choose_label(file, list(rows[0]), image, label)
    for number, row in enumerate(rows, start=1):
        if row.get(image) in (None, "") or row.get(column) in (None, ""):
            raise ValueError(f"{file}, picture {number}: '{image}' and '{column}' are needed, this has {row}")
        path = file.parent / str(row[image])
        if not path.is_file():
            raise FileNotFoundError(f"{file}, picture {number}: there is no '{path}'")
        yield Labelled(path, row[column], str(path))


def _arrays(
    source: Path, splits: dict[str, list[Labelled]], resolution: int, names: list[str] | None, name: str
) -> ImageArrays:
    """The data set, with its classes in the order of numbers, or of names."""
    train, val = splits["train"], splits.get("val") or splits.get("test")
    labels = sorted({each.label for each in train}, key=lambda label: (_number(label), str(label)))
    if len(labels) < 2:
        raise ValueError(f"{source} has pictures of {len(labels)} classes to train on, at least 2 are needed")
    if names is not None:
        labels = list(range(len(names)))
    places = {label: k for k, label in enumerate(labels)}
    if val is None:
        train, val = _held_out(train)
    unknown = next((each for each in val if each.label not in places), None)
    if unknown is not None:
        raise ValueError(f"{unknown.source} is of class {unknown.label!r}, which there is none of to train on")
    images = [_read(part, resolution) for part in (train, val)]
    numbers = [np.array([places[each.label] for each in part], dtype=np.int64) for part in (train, val)]
    return ImageArrays(images[0], numbers[0], images[1], numbers[1], tuple(names or map(str, labels)), name)


def _number(label: str | int) -> float:
    """By which numbers, text too, are put in their order; names come behind."""
    try:
        return float(label)
    except ValueError:
        return float("inf")


def _held_out(every: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """Every fifth picture of each class for validation, in the order that they come in."""
    seen: dict[str | int, int] = {}
    parts: tuple[list[Labelled], list[Labelled]] = ([], [])
    for each in every:
        seen[each.label] = seen.get(each.label, 0) + 1
        parts[seen[each.label] % FOLD == 0].append(each)
    few = next((label for label, count in seen.items() if count < FOLD), None)
    if few is not None:
        raise ValueError(f"class {few!r} has fewer than {FOLD} images, none is left for validation")
    return parts


def _read(part: Sequence[Labelled], resolution: int) -> np.ndarray:
    from PIL import Image
    from tqdm import tqdm

    images = np.empty((len(part), resolution, resolution, 3), dtype=np.uint8)
    for k, each in enumerate(tqdm(part, desc="images", unit=" images", leave=False, disable=None)):
        if isinstance(each.picture, Path):
            with opened(each.picture) as picture:
                rgb = as_rgb(picture)
        else:
            try:
                with Image.open(io.BytesIO(each.picture)) as picture:
                    rgb = as_rgb(picture)
            except (OSError, ValueError, SyntaxError) as error:
                raise ValueError(f"{each.source} cannot be read as an image ({error})") from error
        images[k] = np.asarray(rgb.resize((resolution, resolution), Image.Resampling.BOX))
    return images
