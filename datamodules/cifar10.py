"""CIFAR-10 from its official binary version, which needs no pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.image_arrays import ImageArrays
from datamodules.npz import write_npz

_TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
_TEST = ("test_batch.bin",)
_CLASSES = "batches.meta.txt"
_PIXELS = 3 * 32 * 32
_FETCH = "fetch cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it"


def convert_cifar10(source: Path, out: Path) -> Path:
    """Write CIFAR-10 as an ``.npz`` file: 50,000 training and 10,000 test images in their official order.

    Args:
        source: the unpacked folder ``cifar-10-batches-bin``.
        out: the file to write.

    Raises:
        FileNotFoundError: a file of the data set is missing.
        ValueError: a file is damaged.
    """
    return write_npz(read_cifar10(Path(source)), Path(out), held_out="test")


def read_cifar10(source: Path) -> ImageArrays:
    """CIFAR-10 from the folder of its binary version.

    A record is one byte, the label, and 3,072 bytes, the red, green and blue pixels row by row (the data set's own
    page). The test images are the validation split of what is returned.
    """
    if not (source / _TRAIN[0]).is_file() and (source / "data_batch_1").is_file():
        raise FileNotFoundError(
            f"{source} holds CIFAR-10's Python version, whose pickles are never loaded; {_FETCH}: the binary version"
        )
    for name in (_CLASSES, *_TRAIN, *_TEST):
        if not (source / name).is_file():
            raise FileNotFoundError(f"{source} has no '{name}'; {_FETCH}: its folder is cifar-10-batches-bin")
    classes = tuple((source / _CLASSES).read_text(encoding="utf-8").split())
    train_images, train_labels = _read([source / name for name in _TRAIN], len(classes))
    test_images, test_labels = _read([source / name for name in _TEST], len(classes))
    return ImageArrays(train_images, train_labels, test_images, test_labels, classes, "cifar10")


def _read(paths: list[Path], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[n, 32, 32, 3]`` and labels int64 ``[n]`` of some files, one after the other."""
    images, labels = [], []
    for path in paths:
        content = np.fromfile(path, dtype=np.uint8)
        if content.size == 0 or content.size % (1 + _PIXELS):
            raise ValueError(f"{path} has {content.size} bytes, no multiple of {1 + _PIXELS}: it is damaged; {_FETCH}")
        records = content.reshape(-1, 1 + _PIXELS)
        if records[:, 0].max() >= classes:
            raise ValueError(f"{path} has a label {records[:, 0].max()}, 0 to {classes - 1} are known: it is damaged")
        images.append(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(records[:, 0].astype(np.int64))
    return np.concatenate(images), np.concatenate(labels)
