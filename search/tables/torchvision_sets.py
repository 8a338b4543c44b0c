"""Image data sets from the folders that torchvision downloads them to; nothing is fetched, and no pickle executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.image_arrays import ImageArrays, resize
from datamodules.npz import write_npz
from search.errors import nearest, one_line
from search.tables.restricted_pickle import PickledArray, read_pickle

_CIFAR = {
    "CIFAR10": ("cifar-10-batches-py", [f"data_batch_{k}" for k in range(1, 6)], "test_batch", "batches.meta", "label"),
    "CIFAR100": ("cifar-100-python", ["train"], "test", "meta", "fine_label"),
}
"""Folder, training files, test file, file of names, and what labels are called, in the singular."""
_BY_FLAG = ("MNIST", "FashionMNIST", "KMNIST", "USPS")
_BY_SPLIT = {"SVHN": "test", "STL10": "test"}
"""Data sets in arrays, and the split that is not trained on."""
KNOWN = (*_CIFAR, *_BY_FLAG, *_BY_SPLIT)


def convert_torchvision(source: Path, out: Path, name: str | None = None, resolution: int | None = None) -> Path:
    """Write a data set of torchvision as an ``.npz`` file.

    Args:
        source: the folder that torchvision was given as ``root``.
        out: the file to write.
        name: torchvision's class.
        resolution: height and width, in pixels; None for the data set's own.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: no name was given, or one that is not known here, or a file is damaged.
    """
    if name is None:
        raise ValueError(f"--name is missing, known are {', '.join(KNOWN)}")
    if name not in KNOWN:
        raise ValueError(
            f"--name {name}: known are {', '.join(KNOWN)}{nearest(name, KNOWN, '')}; pictures in a sub-folder for each "
            "class are read by 'catchmark data image_folder'"
        )
    if not source.is_dir():
        raise FileNotFoundError(f"no folder '{source}'")
    arrays = _read_cifar(source, name) if name in _CIFAR else _read_torchvision(source, name)
    if resolution is not None:
        train, val = (resize(images, resolution) for images in (arrays.train_images, arrays.val_images))
        arrays = ImageArrays(train, arrays.train_labels, val, arrays.val_labels, arrays.classes, arrays.name)
    return write_npz(arrays, out, held_out="test")


def _read_cifar(source: Path, name: str) -> ImageArrays:
    """CIFAR's Python version: its pickles are read as data."""
    folder, training, test, meta, label = _CIFAR[name]
    place = source if (source / training[0]).is_file() else source / folder

    def read(file: str) -> dict[str, Any]:
        path = place / file
        if not path.is_file():
            raise FileNotFoundError(f"{source} has no '{folder}/{file}'; have torchvision download {name} there first")
        with path.open("rb") as stream:
            content = read_pickle(stream, str(path), arrays=True)
        # Python 2 wrote text, which Python 3 pickles anew as bytes where somebody does.
        return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in content.items()}

    def images_of(files: list[str]) -> tuple[np.ndarray, np.ndarray]:
        contents = [read(file) for file in files]
        images = [each["data"].values if isinstance(each["data"], PickledArray) else each["data"] for each in contents]
        rows = np.concatenate(images).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(rows), np.concatenate([np.array(each[f"{label}s"]) for each in contents])

    names = [each.decode() if isinstance(each, bytes) else str(each) for each in read(meta)[f"{label}_names"]]
    (train, train_labels), (val, val_labels) = images_of(training), images_of([test])
    return ImageArrays(
        train, train_labels.astype(np.int64), val, val_labels.astype(np.int64), tuple(names), name.lower()
    )


def _read_torchvision(source: Path, name: str) -> ImageArrays:
    """What torchvision itself reads without pickles: plain bytes, MATLAB's files and text."""
    from torchvision import datasets

    make: Callable[..., Any] = getattr(datasets, name)
    splits = (
        ({"train": True}, {"train": False}) if name in _BY_FLAG else ({"split": "train"}, {"split": _BY_SPLIT[name]})
    )
    try:
        train, val = (make(str(source), download=False, **split) for split in splits)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"{source} holds no {name} that torchvision can read ({one_line(error).split('.')[0]}); have it downloaded "
            "there first"
        ) from error
    (images, labels), (val_images, val_labels) = (_arrays_of(each) for each in (train, val))
    names = getattr(train, "classes", None) or [str(k) for k in range(int(labels.max()) + 1)]
    return ImageArrays(images, labels, val_images, val_labels, tuple(map(str, names)), name.lower())


def _arrays_of(split: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[n, height, width, channels]`` and labels int64 ``[n]``."""
    images = np.asarray(split.data)
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[1] == 3:  # channels first, as SVHN and STL-10 have them
        images = images.transpose(0, 2, 3, 1)
    labels = split.targets if hasattr(split, "targets") else split.labels
    return np.ascontiguousarray(images), np.asarray(labels).astype(np.int64)
