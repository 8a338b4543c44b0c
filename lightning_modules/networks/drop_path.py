"""Scheduled drop path: leaving operations out at random, the more of them the longer a training lasts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
