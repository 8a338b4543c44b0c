"""Small spaces to check plugins on, and rewards on them that are exact in floating point."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from search.evaluation import Architecture
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head

WIDTHS = (4, 8, 16)
LENGTHS = (4, 5, 3)
LIMITS = (9, 7, 5)
"""Most blocks in total, for each width: a wide network must be shallow."""


class MaskedSpace(SearchSpace):
    """A width, three stage lengths (from 1) whose sum the width limits, and an activation."""

    name = "masked"
    decisions = (
        Decision("width", tuple(str(width) for width in WIDTHS)),
        *(
            Decision(f"length {stage}", tuple(str(length) for length in range(1, most + 1)))
            for stage, most in enumerate(LENGTHS, start=1)
        ),
        Decision("activation", ("relu", "tanh")),
    )

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Lengths that leave a block to each stage still to come."""
        t = prefix.shape[-1]
        if not 1 <= t <= len(LENGTHS):
            return super().valid_choices(prefix)
        limit = torch.tensor(LIMITS)[prefix[..., 0]]
        used = (prefix[..., 1:] + 1).sum(-1)
        still_to_come = len(LENGTHS) - t  # at least one block each
        return torch.arange(1, LENGTHS[t - 1] + 1) <= (limit - used - still_to_come).unsqueeze(-1)

    def build(self, architecture: Architecture, head: Head = OWN_HEAD) -> nn.Module:
        """A stack of small convolutions and a classifier."""
        width, *lengths, activation = self.check(architecture)
        channels = WIDTHS[width]
        layers: list[nn.Module] = [nn.Conv2d(head.in_channels, channels, 3, stride=2, padding=1)]
        for length in lengths:
            for _ in range(length + 1):
                layers += [(nn.ReLU, nn.Tanh)[activation](), nn.Conv2d(channels, channels, 1)]
            layers.append(nn.AvgPool2d(2, ceil_mode=True))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, head.classes_or(10)))


class Grid(SearchSpace):
    """Some decisions of some choices each, all combinations valid; it has no networks."""

    name = "grid"

    def __init__(self, decisions: int = 6, choices: int = 5):
        names = tuple("abcdefghij"[:choices])
        self.decisions = tuple(Decision(f"decision {t}", names) for t in range(decisions))

    def build(self, architecture: Architecture, head: Head = OWN_HEAD, *options: Any, **named: Any) -> nn.Module:
        """It has none."""
        raise NotImplementedError


def integer_reward(space: SearchSpace, archs: Tensor, seed: int = 0) -> Tensor:
    """Additive, plus an interaction of every pair of choices; whole numbers, so no rounding depends on batch shapes.

    int64 ``[..., decisions]`` to float64 ``[...]``.
    """
    single, pairs = _worths(space.offsets[-1], seed)
    code = space.one_hot(archs).double()
    return code @ single + ((code @ pairs) * code).sum(-1)


@functools.lru_cache(maxsize=64)
def _worths(length: int, seed: int) -> tuple[Tensor, Tensor]:
    """What each choice adds, float64 ``[length]``, and each pair of them, ``[length, length]``."""
    generator = torch.Generator().manual_seed(seed)
    single = torch.randint(-50, 50, (length,), generator=generator).double()
    pairs = torch.randint(-10, 10, (length, length), generator=generator).double()
    return single, pairs
