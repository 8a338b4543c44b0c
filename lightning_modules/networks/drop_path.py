"""Leaving out whole terms of a sum at random, image by image, in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, zero for some images of a batch, and as much more for the others (FractalNet, sec. 4; NASNet).

    Draws from torch's random state. How likely it is changes while a network is trained: whoever trains sets
    `probability`, as `ClassificationModule` does.

    Attributes:
        probability: of zero, from 0 to below 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, ...]`` to the same shape, the same on average."""
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        mask = torch.empty(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(kept)
        return x * (mask / kept)


class ScheduledDropPath(nn.Module):
    """In training, leaves an operation's output out at random, for each image by itself, and scales up those that stay.

    The later in the training, the more are left out: a share ``progress * (1 - keep)`` (NASNet; Auto-DeepLab's code).

    Args:
        keep: share that stays at the end of the training.

    Attributes:
        progress: share of the training that is over, from 0 to 1; who trains sets it.
    """

    def __init__(self, keep: float):
        super().__init__()
        self.keep, self.progress = keep, 0.0

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, ...]`` to the same shape."""
        keep = 1 - self.progress * (1 - self.keep)
        if not self.training or keep >= 1:
            return x
        stays = torch.rand(len(x), *(1,) * (x.dim() - 1), device=x.device, dtype=x.dtype) < keep
        return x * stays / keep


def set_drop_path(network: nn.Module, probability: float) -> int:
    """Set the probability of every `DropPath` of a network.

    Returns:
        How many it has.
    """
    found = [module for module in network.modules() if isinstance(module, DropPath)]
    for module in found:
        module.probability = probability
    return len(found)
