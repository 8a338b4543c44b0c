"""Image data sets from folders of picture files, a sub-folder a class."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datamodules.class_folders import Division, divide
from datamodules.image_arrays import ImageArrays
from datamodules.npz import write_npz
from datamodules.pictures import read_rgb, survey


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
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}, at least 1 pixel is needed")
    if classes is not None and classes < 2:
        raise ValueError(f"classes is {classes}, at least 2 are needed")
    return read_division(divide(source, classes), resolution, name)


def read_division(found: Division, resolution: int, name: str) -> ImageArrays:
    """The pictures that a folder was divided into, squeezed to squares.

    Args:
        found: the pictures.
        resolution: height and width, in pixels.
        name: what the data set is called.

    Raises:
        ValueError: a picture cannot be read; names it.
    """
    bits = survey(found.files)
    arrays = ImageArrays(
        *_read(found.train, resolution, "train", bits),
        *_read(found.val, resolution, "val", bits),
        tuple(found.names),
        name,
    )
    if found.test:
        images, labels = _read(found.test, resolution, "test", bits)
        arrays = replace(arrays, test_images=images, test_labels=labels)
    if found.test_folder is not None:
        use = "for the report alone" if found.test else "left aside: it has not the classes of training"
        print(f"{found.val_folder} is for validation, {found.test_folder} is {use}", file=sys.stderr)
    return arrays


def _read(pictures: Sequence[list[Path]], resolution: int, split: str, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[n, resolution, resolution, 3]`` and labels int64 ``[n]``, class after class."""
    from PIL import Image

    paths = [path for of_class in pictures for path in of_class]
    # Filled in place: of a million images a list of arrays and their concatenation would be two copies.
    images = np.empty((len(paths), resolution, resolution, 3), dtype=np.uint8)
    for k, path in enumerate(tqdm(paths, desc=f"{split} images", unit=" images", leave=False, disable=None)):
        images[k] = np.asarray(read_rgb(path, bits).resize((resolution, resolution), Image.Resampling.BOX))
    return images, np.repeat(np.arange(len(pictures), dtype=np.int64), [len(of_class) for of_class in pictures])
