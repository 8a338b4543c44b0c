"""Leaving out whole terms of a sum at random, image by image, in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, zero for some images of a batch, and as much more for the others (FractalNet, sec. 4; NASNet).

    Draws from torch's random state. How likely it is changes while a network is trained: whoever trains tells all of
    them by `set_drop_path`.

    Args:
        share: of what is set for the whole network, from 0 to 1: deeper cells may drop more (Auto-DeepLab's code).

    Attributes:
        probability: of zero, from 0 to below 1.
    """

    def __init__(self, share: float = 1.0):
        super().__init__()
        self.share, self.probability = share, 0.0

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, ...]`` to the same shape, the same on average."""
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        mask = torch.empty(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(kept)
        return x * (mask / kept)


def set_drop_path(network: nn.Module, probability: float) -> int:
    """Set the probability of every `DropPath` of a network to its share of one.

    Returns:
        How many it has.
    """
    found = [module for module in network.modules() if isinstance(module, DropPath)]
    for module in found:
        module.probability = module.share * probability
    return len(found)
