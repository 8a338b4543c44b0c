"""Folders of picture files, a sub-folder a class: which are splits, which are classes, and what lies in each."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from datamodules.pictures import SUFFIXES
from lightning_modules.spelling import nearest

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
"""What people call the splits of a data set, in capitals or not."""
FOLD = 5
"""Where there is no validation folder, one in so many pictures of each class is held out."""
_NO_CLASSES = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found", "system volume information")
"""Folders that programs leave behind, besides those that begin with a point."""


class Division(NamedTuple):
    """The pictures of a folder, divided for training and validation.

    Attributes:
        names: of the classes, as their folders are called and in the order of these names.
        train: of each class the pictures to train on, in the order of their paths.
        val: likewise for validation.
        val_folder: where the pictures for validation lie; None where they are held out of those to train on.
        test_folder: another folder, which has no part in training and validation; None where there is none.
        test: likewise its pictures, for a report alone; empty where there are none or they are not in classes.
    """

    names: list[str]
    train: list[list[Path]]
    val: list[list[Path]]
    val_folder: Path | None
    test_folder: Path | None
    test: Sequence[list[Path]] = ()

    @property
    def files(self) -> list[Path]:
        """Every picture, those to train on first."""
        return [path for of_class in [*self.train, *self.val, *self.test] for path in of_class]


def divide(source: Path, most: int | None = None, left_out: Sequence[str] = ()) -> Division:
    """What to train on and what to validate with.

    Args:
        source: has ``train`` and ``val`` with a sub-folder a class in each, or what `SPLITS` calls them; where there is
            no ``val``, ``test`` takes its place, and where there is, ``test`` is for a report. Or it has directly a
            sub-folder a class: then every fifth picture of each class, in the order of their paths, is for validation.
        most: only the first so many classes, in the order of their folders' names; None for all.
        left_out: pictures that are passed over as if they were not there, by their paths below ``source``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has another layout, too few pictures, or one that is to be left out is not there.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"no folder '{source}'")
    for path in left_out:
        if not (source / path).is_file():
            raise ValueError(f"left_out: there is no picture '{path}' in {source}; take it out of the list")
    without = {source / path for path in left_out}
    splits = find_splits(source)
    train_folder, val_folder = splits.get("train", source), splits.get("val") or splits.get("test")
    if val_folder is not None:
        names, train, val = find_both(train_folder, val_folder, most, without)
        aside = splits.get("test") if "val" in splits else None
        test: Sequence[list[Path]] = ()
        if aside is not None:
            with suppress(ValueError):  # test pictures are often handed out without their classes
                test = find_both(train_folder, aside, most, without)[2]
        return Division(names, train, val, val_folder, aside, test)
    names, both = find_pictures(train_folder, most, without)
    train = [[path for k, path in enumerate(paths) if k % FOLD < FOLD - 1] for paths in both]
    val = [paths[FOLD - 1 :: FOLD] for paths in both]
    few = [label for label, paths in zip(names, val, strict=True) if not paths]
    if few:
        raise ValueError(f"{source}: class '{few[0]}' has fewer than {FOLD} images, none is left for validation")
    return Division(names, train, val, None, None)


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
    named = {path: split for path in below if (split := split_of(path.name)) is not None}
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


def split_of(name: str) -> str | None:
    """The split that the words of a name mean: of ``seg_train``, ``Training Set`` and ``train2017`` the first.

    Returns:
        ``train``, ``val`` or ``test``; None where its words mean none of them, or several.
    """
    words = {word for whole in re.findall("[a-z]+", name.lower()) for word in (whole, whole.removesuffix("set"))}
    meant = [split for split, names in SPLITS.items() if words & set(names)]
    return meant[0] if len(meant) == 1 else None


def find_both(
    train: Path, val: Path, most: int | None, without: Collection[Path] = ()
) -> tuple[list[str], list[list[Path]], list[list[Path]]]:
    """Class names, and each class's training and validation pictures; a class may have none of the latter.

    Args:
        train: has a sub-folder a class.
        val: likewise; its classes are among those of ``train``.
        most: only the first so many classes, in the order of their names; None for all.
        without: pictures to pass over.

    Raises:
        ValueError: there are too few classes, a sub-folder has no pictures, or a class is unknown in training.
    """
    names, training = find_pictures(train, most, without)
    every = {path.name for path in _folders(train)}
    for path in _folders(val):
        if path.name not in every and _has_pictures(path):
            hint = nearest(path.name, every, "")
            raise ValueError(f"{val} has class '{path.name}', which {train} has not{hint}")
    validation = [_pictures_of(val / name, without) if (val / name).is_dir() else [] for name in names]
    if not any(validation):
        raise ValueError(f"{val} has none of the classes of {train}, a sub-folder for each is needed")
    return names, training, validation


def find_pictures(folder: Path, most: int | None, without: Collection[Path] = ()) -> tuple[list[str], list[list[Path]]]:
    """Class names, and each class's picture files in the order of their names, at any depth below its folder.

    Args:
        folder: has a sub-folder a class.
        most: only the first so many classes, in the order of their names; None for all.
        without: pictures to pass over.

    Raises:
        ValueError: there are too few classes, or one has no pictures.
    """
    folders = _folders(folder)
    if len(folders) < max(2, most or 2):
        raise ValueError(
            f"{folder} has {len(folders)} sub-folders, one for each of {max(2, most or 2)} classes is needed"
        )
    return [path.name for path in folders[:most]], [_pictures_of(path, without) for path in folders[:most]]


def _pictures_of(folder: Path, without: Collection[Path]) -> list[Path]:
    pictures = sorted(path for path in _pictures_below(folder) if path not in without)
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


def _listed(folders: Iterable[Path]) -> str:
    return " and ".join(f"'{path.name}'" for path in folders)
