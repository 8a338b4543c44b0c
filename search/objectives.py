"""Rewards of two objectives."""

from __future__ import annotations

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
