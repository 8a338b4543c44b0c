"""A small space whose decisions have different numbers of choices and rule out later ones."""

import torch
from torch import nn

from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD

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

    def valid_choices(self, prefix):
        t = prefix.shape[-1]
        if not 1 <= t <= len(LENGTHS):
            return super().valid_choices(prefix)
        limit = torch.tensor(LIMITS)[prefix[..., 0]]
        used = (prefix[..., 1:] + 1).sum(-1)
        still_to_come = len(LENGTHS) - t  # at least one block each
        return torch.arange(1, LENGTHS[t - 1] + 1) <= (limit - used - still_to_come).unsqueeze(-1)

    def build(self, architecture, head=OWN_HEAD):
        width, *lengths, activation = self.check(architecture)
        channels = WIDTHS[width]
        layers = [nn.Conv2d(head.in_channels, channels, 3, stride=2, padding=1)]
        for length in lengths:
            for _ in range(length + 1):
                layers += [(nn.ReLU, nn.Tanh)[activation](), nn.Conv2d(channels, channels, 1)]
            layers.append(nn.AvgPool2d(2))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, head.classes_or(10)))
