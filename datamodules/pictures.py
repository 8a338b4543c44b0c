"""Picture files as people see them: upright, red, green and blue, 8 bits each, whatever the file holds.

Grey of more than 8 bits is scaled by one rule for all pictures of a data set, `survey`: by the fewest bits that hold
its highest value, so that 12 bits in files of 16 keep their contrast, and two pictures their difference in brightness.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

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
    from PIL import Image

    try:
        if not file.stat().st_size:
            raise ValueError("the file is empty")
        with Image.open(file) as picture:
            yield picture
    except (*_ERRORS, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as an image ({error})") from error


def upright_size(picture: Image) -> tuple[int, int]:
    """Width and height of an opened picture as it is seen, that is, turned as its EXIF data say."""
    width, height = picture.size
    # Pillow itself turns TIFF files, and says so in their size.
    return (height, width) if picture.format != "TIFF" and _orientation(picture) >= 5 else (width, height)


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

    turn = None if picture.format == "TIFF" else _turn(_orientation(picture))
    if is_deep(picture):
        values = _deep_values(picture)
        if values.max(initial=0) >> bits:
            raise ValueError(f"it has a value of {values.max()}, which {bits} bits do not hold")
        rgb = Image.fromarray((values >> (bits - 8)).astype(np.uint8)).convert("RGB")
    elif picture.has_transparency_data:
        rgb = _over_ground(picture.convert("RGBA"))
    else:
        rgb = picture.convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def upright(picture: Image) -> Image:
    """An opened picture in its own mode, turned as its EXIF data say."""
    turn = None if picture.format == "TIFF" else _turn(_orientation(picture))
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


def survey(files: Sequence[Path]) -> int:
    """Look at the pictures of a data set before it is trained on.

    Every picture is opened, and decoded where the files are small together; of very many only some are opened. Grey
    pictures of more than 8 bits are decoded in any case.

    Returns:
        The fewest bits, 8 to 16, that hold every value of the grey pictures of more than 8 bits.

    Raises:
        ValueError: a picture cannot be read; names the file.
    """
    decoded = len(files) <= OPENED and sum(file.stat().st_size for file in files) <= _DECODED
    some = files[:: max(1, -(-len(files) // OPENED))]
    highest = _highest(some, decoded)
    if highest is not None and len(some) < len(files):
        highest = _highest(files, decoded)
    return 16 if highest is None else max(8, int(highest).bit_length())


def _highest(files: Sequence[Path], decoded: bool) -> int | None:
    """The highest value of grey pictures of more than 8 bits; None where there are none."""
    highest = None
    for file in tqdm(files, desc="pictures looked at", unit=" pictures", leave=False, disable=None):
        with opened(file) as picture:
            if is_deep(picture):
                highest = max(highest or 0, int(_deep_values(picture).max(initial=0)))
            elif decoded:
                picture.load()
    return highest


def _deep_values(picture: Image) -> np.ndarray:
    """Int32 ``[height, width]``, 0 to 65,535."""
    values = np.asarray(picture).astype(np.int32)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65_535:
        raise ValueError(f"its values run from {values.min()} to {values.max()}, 0 to 65535 are read")
    return values


def _over_ground(picture: Image) -> Image:
    from PIL import Image

    alpha = np.asarray(picture.getchannel("A"))
    if not alpha.any() or alpha.min() == 255:
        return picture.convert("RGB")
    lightness = np.average(np.asarray(picture.convert("L")), weights=alpha)
    ground = Image.new("RGBA", picture.size, "black" if lightness > _LIGHT else "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _orientation(picture: Image) -> int:
    """1 to 8, as EXIF counts them; 1 is upright, from 5 on width and height change places."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # Pillow would read the whole file for it
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except _ERRORS:
        return 1  # damaged EXIF data leave a picture as it is
    return orientation if orientation in range(1, 9) else 1


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
