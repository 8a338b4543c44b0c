"""Picture files as people see them: upright, red, green and blue, 8 bits each, whatever the file holds.

Grey of more than 8 bits is scaled by one rule for all pictures of a data set, `survey`: by the fewest bits that hold
its highest value, so that 12 bits in files of 16 keep their contrast, and two pictures their difference in brightness.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

_Item = TypeVar("_Item")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
OPENED = 20_000
"""Of more pictures than this only so many, evenly spaced, are opened before training (assumed: half a minute)."""
_DECODED = 100 * 2**20  # bytes of files, up to which every picture is decoded before training (assumed: few seconds)
_ORIENTATION = 0x0112  # in EXIF
_LIGHT = 191  # of 255: what is lighter than this could not be told from white
_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error)


@contextmanager
def opened(file: Path) -> Iterator[Image]:
    """A picture of which only the header is read so far.

    Raises:
        ValueError: there is no such picture, or what is done with it in the ``with`` block fails; names the file.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Not by its name: Pillow 12.3 would map a turned TIFF file into memory in the wrong shape.
        with file.open("rb") as stream, Image.open(stream) as picture:
            yield picture
    except UnidentifiedImageError as error:
        what = "its content is of no known format" if file.stat().st_size else "it is empty"
        raise ValueError(f"{file} cannot be read as an image ({what})") from error
    except (*_ERRORS, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as an image ({error})") from error


def upright_size(picture: Image) -> tuple[int, int]:
    """Width and height of an opened picture as it is seen, that is, turned as its EXIF data say."""
    width, height = picture.size
    # Pillow itself turns TIFF files, and says so in their size.
    return (height, width) if picture.format != "TIFF" and orientation_of(picture) >= 5 else (width, height)


def orientation_of(picture: Image) -> int:
    """How EXIF data turn an opened picture: 1 to 8, of which 1 is not at all, and from 5 on the sides change places."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # Pillow would read the whole file for it
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except _ERRORS:
        return 1  # damaged EXIF data leave a picture as it is
    return orientation if orientation in range(1, 9) else 1


def read_rgb(file: Path, bits: int = 16) -> Image:
    """The whole picture, as `as_rgb` makes it.

    Raises:
        ValueError: it cannot be read; names the file.
    """
    with opened(file) as picture:
        return as_rgb(picture, bits)


def as_rgb(picture: Image, bits: int = 16) -> Image:
    """An opened picture, upright and in mode ``RGB``.

    What is see-through shows white, or black where all that was drawn is nearly white. A picture that would be
    invisible altogether is taken without its alpha channel.

    Args:
        picture: of any mode but floating-point numbers.
        bits: of grey pictures of more than 8 bits, as `survey` counts them.

    Raises:
        ValueError: its values are not whole numbers of so many bits. Call this inside `opened`, which names the file.
    """
    from PIL import Image

    turn = None if picture.format == "TIFF" else _turn(orientation_of(picture))
    if is_deep(picture):
        values = deep_values(picture)
        if int(values.max(initial=0)) >> bits:
            raise ValueError(f"it has a value of {values.max()}, which {bits} bits do not hold")
        rgb = Image.fromarray((values >> (bits - 8)).astype(np.uint8)).convert("RGB")
    elif picture.has_transparency_data:
        rgb = _over_ground(picture.convert("RGBA"))
    else:
        rgb = picture.convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def upright(picture: Image) -> Image:
    """An opened picture in its own mode, turned as its EXIF data say."""
    turn = None if picture.format == "TIFF" else _turn(orientation_of(picture))
    picture.load()
    return picture if turn is None else picture.transpose(turn)


def is_deep(picture: Image) -> bool:
    """Whether an opened picture is grey of more than 8 bits.

    Raises:
        ValueError: its values are floating-point numbers, whose scale is not known.
    """
    if picture.mode == "F":
        raise ValueError("its values are floating-point numbers; save it with 8 or 16 bits")
    return picture.mode.startswith("I")


def deep_values(picture: Image) -> np.ndarray:
    """The values of an opened picture of more than 8 bits: uint16 ``[height, width]``.

    Raises:
        ValueError: they are below 0 or above 65,535.
    """
    values = np.asarray(picture)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65_535:
        raise ValueError(f"its values run from {values.min()} to {values.max()}, 0 to 65535 are read")
    return values.astype(np.uint16)


def survey(files: Sequence[Path], scaled: bool = True) -> int:
    """Look at the pictures of a data set before it is trained on.

    Every picture is opened, and decoded where the files are small together; of very many only some are opened.

    Args:
        files: of the pictures.
        scaled: whether grey pictures of more than 8 bits will be scaled, for which they are decoded in any case.

    Returns:
        The fewest bits, 8 to 16, that hold every value of the grey pictures of more than 8 bits.

    Raises:
        ValueError: a picture cannot be read; names the file.
    """
    decoded = len(files) <= OPENED and sum(file.stat().st_size for file in files) <= _DECODED
    some = spaced(files)
    highest = _highest(some, decoded, scaled)
    if highest is not None and len(some) < len(files):
        highest = _highest(files, decoded, scaled)
    return 16 if highest is None else max(8, int(highest).bit_length())


def spaced(files: Sequence[_Item]) -> Sequence[_Item]:
    """As many of them as are opened before training, evenly spaced."""
    return files[:: max(1, -(-len(files) // OPENED))]


def _highest(files: Sequence[Path], decoded: bool, scaled: bool) -> int | None:
    """The highest value of grey pictures of more than 8 bits; None where there are none, or none is asked for."""
    highest = None
    for file in tqdm(files, desc="pictures looked at", unit=" pictures", leave=False, disable=None):
        with opened(file) as picture:
            if is_deep(picture) and scaled:
                highest = max(highest or 0, int(deep_values(picture).max(initial=0)))
            elif decoded:
                picture.load()
    return highest


def _over_ground(picture: Image) -> Image:
    from PIL import Image

    alpha = np.asarray(picture.getchannel("A"))
    if not alpha.any() or alpha.min() == 255:
        return picture.convert("RGB")
    lightness = np.average(np.asarray(picture.convert("L")), weights=alpha)
    ground = Image.new("RGBA", picture.size, "black" if lightness > _LIGHT else "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _turn(orientation: int) -> Transpose | None:
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
