"""Rewards of two objectives, and the Pareto front between them."""

from __future__ import annotations

import torch
from torch import Tensor


def latency_reward(quality: Tensor, latency: Tensor, target: float, exponent: float) -> Tensor:
    """``quality x (latency / target)^exponent`` (MnasNet, eq. 2; CATCH, sec. 4.3.1).

    Args:
        quality: any shape, any unit, higher is better; the reward has its unit.
        latency: the same shape, above 0, in the unit of ``target``.
        target: the latency at which reward and quality are equal.
        exponent: w; below 0, so that a slower network is worth less. MnasNet uses -0.07: twice the latency costs 5% of
            the quality.

    Returns:
        The same shape; NaN where either is NaN.
    """
    return quality * (latency / target) ** exponent


def pareto_front(quality: Tensor, latency: Tensor) -> Tensor:
    """Which points no other one dominates, that is: is as good and as fast, and better in one of the two.

    Args:
        quality: ``[n]``, higher is better.
        latency: ``[n]``, lower is better.

    Returns:
        Bool ``[n]``. Equal points are on the front together; a point with a NaN is not on it, nor in another's way.
    """
    measured = ~(quality.isnan() | latency.isnan())
    front = torch.zeros_like(measured)
    if not measured.any():
        return front
    quality, (latencies, group) = quality[measured], latency[measured].unique(return_inverse=True)
    best = quality.new_full(latencies.shape, -torch.inf).scatter_reduce(0, group, quality, "amax")
    best_if_faster = torch.cat([best.new_full((1,), -torch.inf), best.cummax(0).values[:-1]])
    front[measured] = (quality == best[group]) & (quality > best_if_faster[group])
    return front
