"""Image data sets from folders of picture files, a sub-folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from datamodules.image_arrays import ImageArrays
from datamodules.npz import write_npz

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_HELD_OUT = ("val", "test")
_FOLD = 5
"""Without a validation folder, one in so many images of each class is held out."""


def convert_image_folder(source: Path, out: Path, resolution: int = 16, classes: int | None = None) -> Path:
    """Write the pictures of a folder as an ``.npz`` file of small square images.

    Args:
        source: has ``train`` and ``val`` (or ``test``) with a sub-folder a class in each, or directly a sub-folder a
            class: then every fifth image of each class, in the order of their names, is a validation image.
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
    held_out = next((source / part for part in _HELD_OUT if (source / part).is_dir()), None)
    if (source / "train").is_dir() and held_out is not None:
        names, train = find_pictures(source / "train", classes)
        _, val = find_pictures(held_out, None, names)
    else:
        names, both = find_pictures(source, classes)
        train = [[path for k, path in enumerate(paths) if k % _FOLD < _FOLD - 1] for paths in both]
        val = [paths[_FOLD - 1 :: _FOLD] for paths in both]
        few = [label for label, paths in zip(names, val, strict=True) if not paths]
        if few:
            raise ValueError(f"{source}: class '{few[0]}' has fewer than {_FOLD} images, none is left for validation")
    return ImageArrays(*_read(train, resolution, "train"), *_read(val, resolution, "val"), tuple(names), name)


def find_pictures(folder: Path, most: int | None, names: list[str] | None = None) -> tuple[list[str], list[list[Path]]]:
    """Class names, and each class's picture files in the order of their names, at any depth below its folder.

    Args:
        folder: has a sub-folder a class.
        most: only the first so many classes, in the order of their names; None for all.
        names: of the classes; None for those of the sub-folders.

    Raises:
        ValueError: there are too few classes, or one has no pictures.
    """
    if names is None:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if len(names) < max(2, most or 2):
            raise ValueError(
                f"{folder} has {len(names)} sub-folders, one for each of {max(2, most or 2)} classes is needed"
            )
        names = names[:most]
    pictures = []
    for name in names:
        found = (path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        pictures.append(sorted(path for path in found if not path.name.startswith(".")))
        if not pictures[-1]:
            raise ValueError(f"{folder / name} has no images ({', '.join(_SUFFIXES)})")
    return names, pictures


def _read(pictures: list[list[Path]], resolution: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[n, resolution, resolution, 3]`` and labels int64 ``[n]``, class after class."""
    from PIL import Image

    paths = [path for of_class in pictures for path in of_class]
    # Filled in place: of a million images a list of arrays and their concatenation would be two copies.
    images = np.empty((len(paths), resolution, resolution, 3), dtype=np.uint8)
    for k, path in enumerate(tqdm(paths, desc=f"{split} images", unit=" images", leave=False, disable=None)):
        try:
            with Image.open(path) as picture:
                small = picture.convert("RGB").resize((resolution, resolution), Image.Resampling.BOX)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} cannot be read as an image ({error})") from error
        images[k] = np.asarray(small)
    return images, np.repeat(np.arange(len(pictures), dtype=np.int64), [len(of_class) for of_class in pictures])
