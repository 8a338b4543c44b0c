"""An exponential moving average of a network's weights."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage(nn.Module):
    """A copy of a network whose weights follow the original's; the rule is `follow`'s.

    Running statistics of normalisation are averaged with the weights, as they belong to them; whole numbers (how many
    batches there were) are copied.

    Args:
        network: to copy and follow.
        decay: of the average, a step.
    """

    def __init__(self, network: nn.Module, decay: float):
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    def update(self, network: nn.Module, step: int) -> None:
        """Follow the network after an optimiser's step, of which there were ``step`` before."""
        # Each once, even where layers share it.
        follow(
            itertools.chain(self.network.parameters(), self.network.buffers()),
            itertools.chain(network.parameters(), network.buffers()),
            self.decay,
            step,
        )

    def forward(self, images: Tensor) -> Tensor:
        """What the network with averaged weights says."""
        return self.network(images)


@torch.no_grad()
def follow(averages: Iterable[Tensor], current: Iterable[Tensor], decay: float, step: int) -> None:
    """Move averages towards the tensors they follow, in place; whole numbers are copied.

    In the first steps the average forgets faster, as TensorFlow's ``ExponentialMovingAverage`` does: at step ``t`` the
    decay is at most ``(1 + t) / (10 + t)``, or a short training would end with an average of little but random weights.

    Args:
        averages: what follows.
        current: what is followed, in the same order.
        decay: share of an average that a step keeps, in [0, 1).
        step: how many there were before.
    """
    pairs = list(zip(averages, current, strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    if floating:
        # All at once: tensor by tensor, a supernet's thousands would cost more than its step.
        update = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))
        update([average for average, _ in floating], [tensor for _, tensor in floating], None)
    for average, tensor in pairs:
        if not average.is_floating_point():
            average.copy_(tensor)
