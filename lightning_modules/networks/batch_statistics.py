"""Normalisation by the statistics of the batch, as supernets use it: no path's statistics fit another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # imported later, its defaults would keep the group alive


class BatchStatistics(nn.Module):
    """Batch normalisation that keeps no running statistics.

    With several ranks the statistics are those of the joint batch, in training and in evaluation; the sums travel
    through a differentiable all-reduce, so gradients are those of the joint batch too.

    Of a feature map with fewer channels, as of an elastic layer, the first scales and shifts are used.

    Args:
        channels: of the feature map, at most.
        affine: whether to learn a scale and a shift. The supernets of NAS-Bench-201 (AutoDL-Projects) do not;
            Landmark Regularization's do on the NAS-Bench spaces and do not on DARTS'.
        eps: added to the variance.
    """

    def __init__(self, channels: int, affine: bool = False, eps: float = 1e-5):
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self._recorded: list[tuple[Tensor, Tensor]] | None = None
        self._fixed: tuple[Tensor, Tensor] | None = None

    @property
    def looks_at_this_batch_alone(self) -> bool:
        """Whether it neither records statistics, nor uses recorded ones, nor shares a batch with other ranks."""
        return self._recorded is None and self._fixed is None and not several_ranks()

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to the same shape."""
        if self._fixed is not None:
            return nn.functional.batch_norm(x, *self._fixed, *self._learned(x), False, 0.0, self.eps)
        if self._recorded is not None:
            self._recorded.append((x.mean((0, 2, 3)), x.var((0, 2, 3))))
        if several_ranks():
            return self._over_ranks(x)
        return nn.functional.batch_norm(x, None, None, *self._learned(x), True, 0.0, self.eps)

    def _learned(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Scale and shift of the channels that are there."""
        if self.weight is None or self.bias is None or x.shape[1] == self.channels:
            return self.weight, self.bias
        return self.weight[: x.shape[1]], self.bias[: x.shape[1]]

    def _over_ranks(self, x: Tensor) -> Tensor:
        channels, rank, ranks = x.shape[1], dist.get_rank(), dist.get_world_size()
        own = torch.cat([x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0), x.new_tensor([x.numel() / channels])])
        # Each rank fills a row of its own, so the sum is everyone's. A sum of squares, less the squared mean, would
        # cancel where the mean is large.
        table = all_reduce(nn.functional.pad(own[None], (0, 0, rank, ranks - 1 - rank)))
        means, variances, counts = table.split([channels, channels, 1], dim=1)
        share = counts / counts.sum()
        mean = (share * means).sum(0)
        scale = ((share * (variances + (means - mean).square())).sum(0) + self.eps).rsqrt()
        weight, bias = self._learned(x)
        if weight is not None:
            scale = scale * weight
        x = (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1)
        return x if bias is None else x + bias.view(-1, 1, 1)


def several_ranks() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def recalibrated(network: nn.Module) -> Iterator[None]:
    """Inside, each normalisation that ran records its statistics; `fix` then makes them those of its evaluation.

    Single Path One-Shot evaluates so: statistics of some training batches for each path anew.
    """
    norms = [module for module in network.modules() if isinstance(module, BatchStatistics)]
    for norm in norms:
        norm._recorded = []
    try:
        yield
    finally:
        for norm in norms:
            norm._recorded = norm._fixed = None


def fix(network: nn.Module) -> None:
    """Inside `recalibrated`: from here on use the mean of the statistics recorded so far."""
    for norm in network.modules():
        if isinstance(norm, BatchStatistics):
            if norm._recorded:
                means, variances = (torch.stack(each).mean(0) for each in zip(*norm._recorded, strict=True))
                norm._fixed = (means, variances)
            norm._recorded = None
