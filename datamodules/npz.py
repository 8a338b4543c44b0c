"""Image data sets as NumPy archives, in the customary layout."""

from __future__ import annotations

import zipfile
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.archives import find_archive, write_archive
from datamodules.image_arrays import ImageArrays
from lightning_modules.spelling import nearest


def find_npz(path: str | PathLike[str]) -> Path:
    """Where an archive lies: below the current folder, else below ``$CATCHMARK_DATA``; absolute paths stay as they are.

    Raises:
        FileNotFoundError: it is in neither; the message says how to make one.
    """
    return find_archive(path, "data: no images", f"{_cure(Path(path))}, or set CATCHMARK_DATA to its folder")


def _cure(path: Path) -> str:
    """How to make an archive of that name out of what a data set's authors publish."""
    if path.stem.startswith("cifar10"):
        return (
            "fetch cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, unpack it and run "
            f"'catchmark data cifar10 cifar-10-batches-bin --out {path.name}'"
        )
    if path.stem.startswith("tiny_imagenet16_120"):
        return (
            "fetch http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpack it and run "
            f"'catchmark data image_folder tiny-imagenet-200/train --out {path.name} --resolution 16 --classes 120'"
        )
    return (
        "make it from a folder that has a sub-folder of images for each class with "
        f"'catchmark data image_folder FOLDER --out {path.name} --resolution 16'"
    )


def load_npz(path: str | PathLike[str]) -> ImageArrays:
    """A data set from a NumPy archive in the customary layout.

    Args:
        path: an ``.npz`` file, looked for as `find_npz` does. It has ``x_train``, ``y_train`` and ``x_val``, ``y_val``
            (or ``x_test``, ``y_test``: with ``test`` alone a search that trains its networks chooses by test images;
            where both are there, ``test`` is for the report of a full training).
            Images are uint8 ``[n, height, width, channels]`` or, grey,
            ``[n, height, width]``; labels are whole numbers ``[n]`` or ``[n, 1]``. ``classes``, an array of strings, is
            optional.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such an archive.
    """
    path = find_npz(path)
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"data: '{path}' is not a NumPy .npz archive") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"data: '{path}' holds a single array, an .npz archive is needed")
    with archive:
        split = "val" if "x_val" in archive.files or "y_val" in archive.files else "test"
        images, labels = {}, {}
        parts = ["train", split] + ["test"] * (split == "val" and "x_test" in archive.files)
        for part in parts:
            images[part] = _read(archive, path, f"x_{part}")
            if images[part].ndim == 3:
                images[part] = images[part][..., None]
            raw = _read(archive, path, f"y_{part}")
            if raw.dtype.kind not in "iu":
                raise ValueError(f"data: 'y_{part}' of '{path}' is {raw.dtype}, whole numbers are needed")
            labels[part] = raw.reshape(len(raw)).astype(np.int64) if raw.size == len(raw) else raw.astype(np.int64)
        if "classes" in archive.files:
            classes = tuple(str(name) for name in _read(archive, path, "classes"))
        else:
            highest = max(int(part.max(initial=-1)) for part in labels.values())
            classes = tuple(str(label) for label in range(highest + 1))
    test = parts[2] if len(parts) > 2 else ""
    return ImageArrays(
        images["train"],
        labels["train"],
        images[split],
        labels[split],
        classes,
        path.stem,
        images.get(test),
        labels.get(test),
    )


def _read(archive: Any, path: Path, key: str) -> np.ndarray:
    """One array of an archive, or a clear error."""
    if key not in archive.files:
        hint = nearest(key, archive.files, "")
        hint += " Rename it" if hint else ""
        raise ValueError(f"data: '{path}' has no array '{key}', only {', '.join(archive.files) or 'none at all'}{hint}")
    try:
        return archive[key]
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"data: array '{key}' of '{path}' is damaged; get or make the file again") from error
    except ValueError as error:
        raise ValueError(
            f"data: array '{key}' of '{path}' holds Python objects, which are not loaded; save it as plain numbers"
        ) from error


def write_npz(arrays: ImageArrays, out: Path, held_out: str = "val") -> Path:
    """Write a data set, whole or not at all.

    Args:
        arrays: the data set.
        out: where to; missing folders are made.
        held_out: what the archive calls the split that is not trained on: ``val`` or ``test``.
    """
    content = {
        "x_train": arrays.train_images,
        "y_train": arrays.train_labels,
        f"x_{held_out}": arrays.val_images,
        f"y_{held_out}": arrays.val_labels,
        "classes": np.array(arrays.classes),
    }
    if arrays.test_images is not None and arrays.test_labels is not None:
        content |= {"x_test": arrays.test_images, "y_test": arrays.test_labels}
    return write_archive(out, content)
