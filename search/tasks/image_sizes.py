"""Whether the networks of a space take images of the size that the data have: asked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from search.errors import one_line
from search.evaluation import Architecture
from search.spaces.base import SearchSpace
from search.spaces.head import head_of

_TRIED = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Sides of images, in pixels, among which one that is taken is looked for."""
_LARGE = 32
"""Images with no side below this are not tried: a space that asks for more says its ``image_multiple`` (assumed)."""
_known: dict[str, str] = {}
"""What was found of spaces, arguments and sizes by what they are: many tasks of a process are alike."""


def check_image_size(space: SearchSpace, size: tuple[int, int], arguments: Mapping[str, Any]) -> None:
    """Refuse images that the networks of a space can't take.

    Networks are built without values and shown images without values, which takes a few tenths of a second.

    Args:
        space: builds the networks.
        size: height and width of the images, in pixels.
        arguments: of `SearchSpace.build_from`.

    Raises:
        ValueError: they take others; one line that names these.
    """
    multiple = space.image_multiple
    shown = f"{space.name}: networks take no images of {size[1]}x{size[0]} pixels"
    if size[0] % multiple or size[1] % multiple:
        raise ValueError(f"{shown}; height and width must be multiples of {multiple}")
    if space.reads_text or min(size) >= _LARGE or not (why := _refusal(space, size, arguments)):
        return
    sides = [-(-side // multiple) * multiple for side in _TRIED]
    taken = next((side for side in sides if not _refusal(space, (side, side), arguments)), None)
    if taken is not None:  # else it is not for the size that they can't be tried so
        raise ValueError(f"{shown} ({why}); {taken}x{taken} are taken: give the data a larger resolution")


def _refusal(space: SearchSpace, size: tuple[int, int], arguments: Mapping[str, Any]) -> str:
    """Why some networks take no batch of two images of this size in training; empty where they do."""
    cached = {name for name in vars(space) if isinstance(getattr(type(space), name, None), cached_property)}
    settings = {name: value for name, value in vars(space).items() if name not in cached}
    key = repr((type(space), settings, size, sorted(arguments.items())))
    if key not in _known:
        _known[key] = _tried(space, size, arguments)
    return _known[key]


def _tried(space: SearchSpace, size: tuple[int, int], arguments: Mapping[str, Any]) -> str:
    head, _ = head_of(arguments)
    try:
        with torch.random.fork_rng(devices=[]):
            for architecture in _extremes(space):
                with torch.device("meta"):
                    network = space.build_from(architecture, arguments).train()
                    network(torch.zeros(2, head.in_channels, *size))
    except Exception as error:  # whatever a space of a user's own does with them
        return one_line(error)
    return ""


def _extremes(space: SearchSpace) -> list[Architecture]:
    """The architecture of every first choice, that of every last one, and one between; as far as they are valid."""
    chosen = [tuple(0 for _ in space.sizes), tuple(size - 1 for size in space.sizes), space.draw("image size")]
    return [each for each in dict.fromkeys(chosen) if bool(space.is_valid(torch.tensor(each)))]
