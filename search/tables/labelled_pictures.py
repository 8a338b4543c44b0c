"""Pictures with a class each, wherever a list or a table names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from search.errors import nearest

LABEL = "label"
"""What the column of classes is called where nobody says otherwise."""


class Labelled(NamedTuple):
    """A picture and its class.

    Attributes:
        picture: a file, or the bytes of one.
        label: the class by name or by number.
        source: what errors call it.
    """

    picture: Path | bytes
    label: str | int
    source: str


def choose_label(file: Path, columns: Sequence[str], image: str, label: str | None) -> str:
    """The column of classes.

    Raises:
        ValueError: a column is missing, or several may be meant.
    """
    if image not in columns:
        raise ValueError(f"{file} has no column '{image}' of images{nearest(image, columns, 'it has')}")
    if label is not None and label not in columns:
        raise ValueError(f"{file} has no column '{label}' of classes{nearest(label, columns, 'it has')}")
    others = [name for name in columns if name != image]
    chosen = label or (LABEL if LABEL in others else others[0] if len(others) == 1 else None)
    if chosen is None:
        raise ValueError(f"{file} has no column 'label'; say with --label which of {', '.join(others)} has the classes")
    return chosen
