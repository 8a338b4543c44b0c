"""All networks of a space that is small enough, by their codes."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from search.spaces.base import SearchSpace

MOST_ARCHITECTURES = 2**20
"""Larger spaces are not listed: of a million architectures the codes take some tens of megabytes."""
_KNOWN: WeakKeyDictionary[SearchSpace, Tensor] = WeakKeyDictionary()
"""The codes of all networks of a space, for as long as there is the space: a run makes agents for every search."""


def combinations(space: SearchSpace) -> int:
    """How many combinations of choices there are, valid or not."""
    return math.prod(space.sizes)


def codes_of_all(space: SearchSpace) -> Tensor | None:
    """Each network of a space once, by `SearchSpace.code` of its canonical architecture.

    Args:
        space: whose; nothing comes of one of more than `MOST_ARCHITECTURES` combinations.

    Returns:
        Int64 ``[size]``, ascending.
    """
    if combinations(space) > MOST_ARCHITECTURES:
        return None
    if space not in _KNOWN:
        archs = decode(space, torch.arange(combinations(space)))
        archs = archs[space.is_valid(archs)]
        _KNOWN[space] = space.code(archs)[(space.canonical(archs) == archs).all(-1)]
    return _KNOWN[space]


def decode(space: SearchSpace, codes: Tensor) -> Tensor:
    """The architectures of codes, valid or not: int64 ``[...]`` to ``[..., decisions]``."""
    choices = []
    for size in reversed(space.sizes):
        choices.append(codes % size)
        codes = codes // size
    return torch.stack(choices[::-1], dim=-1)
