"""The part of a trained network's page about images that chose nothing: classes, what is taken for what, mistakes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.reports.page import decimals_for, number

if TYPE_CHECKING:
    from PIL.Image import Image

    from datamodules.preprocessing import Preprocessing
    from search.deploy.testing import Mistake, Tested

_WHOLE = 25
"""Classes up to which the whole table is shown; of more, only those that are most often taken for others (assumed)."""
_PAIRS = 20
_SIDE, _WIDE = 96, 240
"""Pixels of the longer side of a shown picture: of one that is classified, and of one whose pixels are."""


def content_of_test(tested: Tested, names: Sequence[str], preprocessing: Preprocessing | None) -> dict[str, Any]:
    """What the template shows.

    Args:
        tested: what came of the test.
        names: of the classes.
        preprocessing: turns what the network saw into pictures again; without it, none is shown.
    """
    confusion = tested.confusion
    table: list[tuple[str, list[tuple[str, float]]]] = []
    pairs: list[tuple[str, str, str]] = []
    if confusion is not None:
        shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
        if len(confusion) <= _WHOLE:
            table = [
                (name, [(_count(int(n), float(share), tested.of), float(share)) for n, share in zip(*row, strict=True)])
                for name, *row in zip(names, confusion, shares, strict=True)
            ]
        pairs = _taken_for_another(confusion, shares, names, tested.of)
    rows = [
        (name, int(images), number(value, 1))
        for name, images, value in zip(
            names, [] if confusion is None else confusion.sum(1).tolist(), tested.of_classes, strict=False
        )
    ]
    return {
        "images": tested.images,
        "metrics": [(name, number(value, decimals_for([value]))) for name, value in tested.metrics.items()],
        "of": tested.of,
        "rows": rows,
        "names": list(names),
        "table": table,
        "pairs": pairs,
        "mistakes": [] if preprocessing is None else [_shown(each, names, preprocessing) for each in tested.mistakes],
        "examples": [_as_uri(picture, _WIDE) for picture in tested.examples],
    }


def _count(count: int, share: float, of: str) -> str:
    """A cell: images as they are, pixels as a share of their label's."""
    return f"{count:,}" if of == "images" else f"{share:.1%}"


def _taken_for_another(
    confusion: np.ndarray, shares: np.ndarray, names: Sequence[str], of: str
) -> list[tuple[str, str, str]]:
    """Label, prediction and how often, the most frequent first."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    places = [divmod(int(place), len(confusion)) for place in order]
    return [
        (names[label], names[found], _count(int(wrong[label, found]), float(shares[label, found]), of))
        for label, found in places
        if wrong[label, found]
    ]


def _shown(mistake: Mistake, names: Sequence[str], preprocessing: Preprocessing) -> tuple[str, str, str]:
    """A picture as a data URI, its class, and the class that it was given."""
    from PIL.Image import fromarray

    pixels = preprocessing.pictured(mistake.image)
    picture = fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    return _as_uri(picture, _SIDE), names[mistake.label], names[mistake.found]


def _as_uri(picture: Image, longest: int) -> str:
    """A picture whose longer side has so many pixels, as a data URI."""
    from PIL.Image import Resampling

    scale = longest / max(picture.size)
    how = Resampling.NEAREST if scale > 1 else Resampling.BILINEAR
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
