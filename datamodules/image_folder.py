"""Image data sets from folders of picture files, a sub-folder a class."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datamodules.image_arrays import ImageArrays
from datamodules.npz import write_npz
from datamodules.pictures import SUFFIXES, read_rgb, survey
from lightning_modules.spelling import nearest

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
"""What people call the splits of a data set, in capitals or not."""
_NO_CLASSES = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found", "system volume information")
"""Folders that programs leave behind, besides those that begin with a point."""
_FOLD = 5
"""Without a validation folder, one in so many images of each class is held out."""


def convert_image_folder(source: Path, out: Path, resolution: int = 16, classes: int | None = None) -> Path:
    """Write the pictures of a folder as an ``.npz`` file of small square images.

    Args:
        source: has ``train`` and ``val`` with a sub-folder a class in each, or what `SPLITS` calls them; where there is
            no ``val``, ``test`` takes its place, and where there is, ``test`` becomes the third split. Or it has
            directly a sub-folder a class: then every fifth image of each class, in the order of their names, is a
            validation image.
        out: the file to write.
        resolution: height and width, in pixels. Pictures are squeezed, not cropped, by averaging over boxes, as in the
            downsampled ImageNet that ImageNet16-120 comes from (Chrabaszcz et al. 2017).
        classes: only the first so many classes, in the order of their folders' names; None for all.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has another layout, a picture cannot be read, or a number is out of range.
    """
    return write_npz(read_image_folder(Path(source), resolution, classes, Path(out).stem), Path(out))


def read_image_folder(
    source: Path, resolution: int = 16, classes: int | None = None, name: str = "images"
) -> ImageArrays:
    """The pictures of a folder; arguments as for `convert_image_folder`.

    Returns:
        A data set whose classes are named as their folders, and are in the order of these names.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"no folder '{source}'")
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}, at least 1 pixel is needed")
    if classes is not None and classes < 2:
        raise ValueError(f"classes is {classes}, at least 2 are needed")
    splits = find_splits(source)
    train_folder, held_out = splits.get("train", source), splits.get("val") or splits.get("test")
    if held_out is None:
        names, both = find_pictures(train_folder, classes)
        train = [[path for k, path in enumerate(paths) if k % _FOLD < _FOLD - 1] for paths in both]
        val = [paths[_FOLD - 1 :: _FOLD] for paths in both]
        few = [label for label, paths in zip(names, val, strict=True) if not paths]
        if few:
            raise ValueError(f"{source}: class '{few[0]}' has fewer than {_FOLD} images, none is left for validation")
    else:
        names, train, val = find_both(train_folder, held_out, classes)
    test = find_test(splits, classes)
    bits = survey([path for paths in train + val + test for path in paths])
    arrays = ImageArrays(
        *_read(train, resolution, "train", bits), *_read(val, resolution, "val", bits), tuple(names), name
    )
    if test:
        images, labels = _read(test, resolution, "test", bits)
        arrays = replace(arrays, test_images=images, test_labels=labels)
    if len(splits) == len(SPLITS):
        use = "for the report alone" if test else "left aside: it has not the classes of training"
        print(f"{held_out} is for validation, {splits['test']} is {use}", file=sys.stderr)
    return arrays


def find_splits(folder: Path) -> dict[str, Path]:
    """The folders of the splits ``train``, ``val`` and ``test``, as far as there are any.

    A folder is a split's by its name in `SPLITS`, or else by one of the words of its name, if its pictures lie in
    sub-folders: one whose pictures lie in it can be the class of trains.

    Returns:
        Nothing where the folder has no splits but, it seems, classes.

    Raises:
        ValueError: it has splits and classes side by side, or two folders for one split, or none to train on.
    """
    below = _folders(folder)
    named = {path: split for path in below if (split := _split_of(path.name)) is not None}
    found = set(named.values())
    if not any(_has_pictures(inner) for path in named for inner in _folders(path)) and not (
        "train" in found and len(found) > 1
    ):
        return {}
    for path in below:
        if path not in named and _has_pictures(path):
            raise ValueError(
                f"{folder} has '{path.name}' with pictures beside {_listed(named)}, which look like splits of data; "
                "move it into them or away, or rename them if they are classes"
            )
    if "train" not in found:
        raise ValueError(f"{folder} has {_listed(named)} but no 'train' to train on")
    splits = {}
    for split in found:
        meant = [path for path in named if named[path] == split]
        meant = [path for path in meant if path.name.lower() in SPLITS[split]] or meant
        if len(meant) > 1:
            raise ValueError(f"{folder} has {_listed(meant)} for one split, move all but one of them away")
        splits[split] = meant[0]
    return splits


def find_both(train: Path, val: Path, most: int | None) -> tuple[list[str], list[list[Path]], list[list[Path]]]:
    """Class names, and each class's training and validation pictures; a class may have none of the latter.

    Args:
        train: has a sub-folder a class.
        val: likewise; its classes are among those of ``train``.
        most: only the first so many classes, in the order of their names; None for all.

    Raises:
        ValueError: there are too few classes, a sub-folder has no pictures, or a class is unknown in training.
    """
    names, training = find_pictures(train, most)
    every = {path.name for path in _folders(train)}
    for path in _folders(val):
        if path.name not in every and _has_pictures(path):
            hint = nearest(path.name, every, "")
            raise ValueError(f"{val} has class '{path.name}', which {train} has not{hint}")
    validation = [_pictures_of(val / name) if (val / name).is_dir() else [] for name in names]
    if not any(validation):
        raise ValueError(f"{val} has none of the classes of {train}, a sub-folder for each is needed")
    return names, training, validation


def find_test(splits: Mapping[str, Path], most: int | None) -> list[list[Path]]:
    """Each class's test pictures, where there are such besides those for validation; else nothing.

    Args:
        splits: as `find_splits` finds them.
        most: as for `find_both`.
    """
    if len(splits) < len(SPLITS):
        return []
    try:
        return find_both(splits["train"], splits["test"], most)[2]
    except ValueError:  # test pictures are often handed out without their classes
        return []


def find_pictures(folder: Path, most: int | None) -> tuple[list[str], list[list[Path]]]:
    """Class names, and each class's picture files in the order of their names, at any depth below its folder.

    Args:
        folder: has a sub-folder a class.
        most: only the first so many classes, in the order of their names; None for all.

    Raises:
        ValueError: there are too few classes, or one has no pictures.
    """
    folders = _folders(folder)
    if len(folders) < max(2, most or 2):
        raise ValueError(
            f"{folder} has {len(folders)} sub-folders, one for each of {max(2, most or 2)} classes is needed"
        )
    return [path.name for path in folders[:most]], [_pictures_of(path) for path in folders[:most]]


def _pictures_of(folder: Path) -> list[Path]:
    pictures = sorted(_pictures_below(folder))
    if not pictures:
        raise ValueError(f"{folder} has no images ({', '.join(SUFFIXES)})")
    return pictures


def _pictures_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = filter(_is_seen, folders)
        yield from (Path(place, name) for name in files if _is_seen(name) and name.lower().endswith(SUFFIXES))


def _has_pictures(folder: Path) -> bool:
    return next(_pictures_below(folder), None) is not None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_seen(path.name))


def _is_seen(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _NO_CLASSES


def _split_of(name: str) -> str | None:
    """The split that the words of a name mean: of ``seg_train``, ``Training Set`` and ``train2017`` the first."""
    words = {word for whole in re.findall("[a-z]+", name.lower()) for word in (whole, whole.removesuffix("set"))}
    meant = [split for split, names in SPLITS.items() if words & set(names)]
    return meant[0] if len(meant) == 1 else None


def _listed(folders: Iterable[Path]) -> str:
    return " and ".join(f"'{path.name}'" for path in folders)


def _read(pictures: list[list[Path]], resolution: int, split: str, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[n, resolution, resolution, 3]`` and labels int64 ``[n]``, class after class."""
    from PIL import Image

    paths = [path for of_class in pictures for path in of_class]
    # Filled in place: of a million images a list of arrays and their concatenation would be two copies.
    images = np.empty((len(paths), resolution, resolution, 3), dtype=np.uint8)
    for k, path in enumerate(tqdm(paths, desc=f"{split} images", unit=" images", leave=False, disable=None)):
        images[k] = np.asarray(read_rgb(path, bits).resize((resolution, resolution), Image.Resampling.BOX))
    return images, np.repeat(np.arange(len(pictures), dtype=np.int64), [len(of_class) for of_class in pictures])
