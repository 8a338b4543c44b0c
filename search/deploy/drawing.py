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
_MARGIN = 2
"""Pixels around the words of a box."""
_Edges = tuple[float, float, float, float]
"""Left, top, right and bottom."""


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
    drawn = Image.new("RGB", (max(large.width, round(font.getlength(words)) + 8), large.height + bar), "white")
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
    labels: list[tuple[_Edges, str, tuple[int, int, int]]] = []
    for box in boxes:  # the best ones choose first where their words stand
        edges = (*sorted((box["left"], box["right"])), *sorted((box["top"], box["bottom"])))
        words = f"{box['class']} {box['score']:.0%}"
        place = _place(edges, pen.textbbox((0, 0), words, font=font), drawn.size, [label[0] for label in labels])
        labels.append((place, words, colour_of(names.index(box["class"]))))
    for box, (_, _, colour) in reversed([*zip(boxes, labels, strict=True)]):  # the best ones last, above the others
        left, right = sorted((box["left"], box["right"]))
        top, bottom = sorted((box["top"], box["bottom"]))
        pen.rectangle((left, top, right, bottom), outline=colour, width=max(1, picture.width // 300))
    for place, words, colour in reversed(labels):
        pen.rectangle(place, fill=colour)
        pen.text((place[0] + _MARGIN, place[1] + _MARGIN), words, fill="black", font=font, anchor="lt")
    return drawn


def _place(box: Sequence[float], words: Sequence[float], picture: tuple[int, int], taken: Sequence[_Edges]) -> _Edges:
    """Where the words of a box stand: left, top, right and bottom.

    Above it, at the inside of its upper edge, below it, at the inside of its lower edge: the first of these that other
    words leave free, all of it within the picture; above it where none is.

    Args:
        box: left, right, top and bottom.
        words: left, top, right and bottom of the words as they are drawn at (0, 0).
        picture: its width and height.
        taken: where others stand.
    """
    left, _, top, bottom = box
    width, height = words[2] - words[0] + 2 * _MARGIN, words[3] - words[1] + 2 * _MARGIN
    across = max(0.0, min(left, picture[0] - width))
    found = []
    for down in (top - height, top, bottom, bottom - height):
        down = max(0.0, min(down, picture[1] - height))
        place = (across, down, across + width, down + height)
        if not any(_overlap(place, each) for each in taken):
            return place
        found.append(place)
    return found[0]


def _overlap(a: _Edges, b: _Edges) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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

    return ImageFont.load_default(size=min(20, max(10, width // 42)))
