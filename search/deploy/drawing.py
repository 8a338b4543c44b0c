"""Pictures with what a network says of them: a caption, boxes, or the classes of their pixels."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_GOLDEN = 0.618034
"""Of a turn: hues so far apart differ however many there are."""
_COVER = 0.5
"""Of a pixel's colour is that of its class."""


def colour_of(label: int) -> tuple[int, int, int]:
    """Red, green and blue of a class."""
    rgb = colorsys.hsv_to_rgb(label * _GOLDEN % 1, 0.55 + 0.45 * (label % 2), 0.95)
    return (round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2]))


def with_caption(picture: Image, words: str) -> Image:
    """A picture with words in a bar below it; a small one is enlarged, for them to be read."""
    from PIL import Image, ImageDraw

    scale = max(1, -(-128 // max(picture.width, 1)))
    large = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    font = _font(large.width)
    bar = round(font.size * 1.6)
    drawn = Image.new("RGB", (large.width, large.height + bar), "white")
    drawn.paste(large)
    ImageDraw.Draw(drawn).text((4, large.height + bar // 8), words, fill="black", font=font)
    return drawn


def with_boxes(picture: Image, boxes: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Image:
    """A picture with boxes, each of the colour of its class, and what they show.

    Args:
        picture: in mode ``RGB``.
        boxes: with ``class``, ``score``, ``left``, ``top``, ``right`` and ``bottom`` in its pixels.
        names: of all classes.
    """
    from PIL import ImageDraw

    drawn, font = picture.copy(), _font(picture.width)
    pen = ImageDraw.Draw(drawn)
    for box in reversed(boxes):  # the best ones last, above the others
        colour = colour_of(names.index(box["class"]))
        left, right = sorted((box["left"], box["right"]))
        top, bottom = sorted((box["top"], box["bottom"]))
        pen.rectangle((left, top, right, bottom), outline=colour, width=max(1, picture.width // 300))
        words = f"{box['class']} {box['score']:.0%}"
        place = (left + 2, max(0.0, top - font.size - 2))
        pen.rectangle(pen.textbbox(place, words, font=font), fill=colour)
        pen.text(place, words, fill="black", font=font)
    return drawn


def with_mask(picture: Image, mask: np.ndarray, classes: int) -> Image:
    """A picture under the colours of its pixels' classes, uint8 ``[height, width]``."""
    from PIL import Image

    colours = np.array([colour_of(label) for label in range(classes)], dtype=np.float32)
    mixed = (1 - _COVER) * np.asarray(picture, dtype=np.float32) + _COVER * colours[mask]
    return Image.fromarray(mixed.round().astype(np.uint8))


def mask_picture(mask: np.ndarray) -> Image:
    """The classes themselves, as values of a picture with a palette: programs read them, and people see them."""
    from PIL import Image

    picture = Image.fromarray(mask)
    picture.putpalette([value for label in range(256) for value in colour_of(label)])
    return picture


def _font(width: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=min(24, max(10, width // 30)))
