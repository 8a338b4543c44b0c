"""What a network is built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Head:
    """What a network is built for, as its data say.

    Attributes:
        classes: that it tells apart, 0 for none; None for as many as the space's own benchmark has.
        in_channels: of the images.
    """

    classes: int | None = None
    in_channels: int = 3

    def classes_or(self, default: int) -> int:
        """How many classes, where the default is the space's own number."""
        return default if self.classes is None else self.classes

    def maps_or(self, default: int) -> int:
        """How many numbers a pixel, where the default is the space's own number of classes: one if there are none."""
        return max(1, self.classes_or(default))


OWN_HEAD = Head()
"""That of the space's own benchmark."""


def head_of(arguments: Mapping[str, Any]) -> tuple[Head, dict[str, Any]]:
    """The head in what a recipe or a file says of building, ``num_classes`` and ``in_channels``, and the rest."""
    options = dict(arguments)
    head = Head(options.pop("num_classes", None), options.pop("in_channels", 3))
    return head, options
