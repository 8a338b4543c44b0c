"""A look at every picture of a data set: how large each is, and which cannot be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from datamodules.pictures import as_rgb, opened, upright_size

_SMALL = 64
"""Pixels of a side that are enough to see whether a JPEG file can be decoded."""


class Examination(NamedTuple):
    """What was seen.

    Attributes:
        sizes: width and height in pixels of each picture that can be read, upright.
        broken: why a picture cannot be read, by its file.
    """

    sizes: list[tuple[int, int]]
    broken: dict[Path, str]

    @property
    def median(self) -> tuple[int, int]:
        """The middle one of all longer sides, and the middle one of all shorter sides."""
        middle = len(self.sizes) // 2
        return sorted(map(max, self.sizes))[middle], sorted(map(min, self.sizes))[middle]

    @property
    def in_words(self) -> str:
        """The range of sizes."""
        smallest, largest = min(self.sizes, key=math.prod), max(self.sizes, key=math.prod)
        if len(set(self.sizes)) == 1:
            return f"{smallest[0]}x{smallest[1]} pixels each"
        longer, shorter = self.median
        return (
            f"{smallest[0]}x{smallest[1]} to {largest[0]}x{largest[1]} pixels, "
            f"the longer side mostly about {longer}, the shorter {shorter}"
        )


def examine(files: Sequence[Path]) -> Examination:
    """Decode every picture.

    Args:
        files: of the pictures.

    Raises:
        ValueError: not one of them can be read; names the first.
    """
    sizes, broken = [], {}
    for file in tqdm(files, desc="pictures looked at", unit=" pictures", leave=False, disable=None):
        try:
            with opened(file) as picture:
                size = upright_size(picture)
                picture.draft(
                    "RGB", (_SMALL, _SMALL)
                )  # a JPEG file is read whole, but decoded at an eighth of its size
                as_rgb(picture)
        except ValueError as error:
            broken[file] = str(error).partition("cannot be read as an image ")[2].strip("()") or str(error)
        except OSError as error:
            broken[file] = error.strerror or "it cannot be opened"
        else:
            sizes.append(size)
    if files and not sizes:
        file, why = next(iter(broken.items()))
        raise ValueError(f"not one of {len(files)} pictures can be read, for instance {file} ({why})")
    return Examination(sizes, broken)
