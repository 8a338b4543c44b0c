"""Rewards of two objectives."""

from __future__ import annotations

import math

from torch import Tensor


def latency_reward(quality: Tensor, latency: Tensor, target: float, exponent: float) -> Tensor:
    """``quality x (latency / target)^exponent`` (MnasNet, eq. 2; CATCH, sec. 4.3.1).

    Args:
        quality: any shape, any unit, at least 0, higher is better; the reward has its unit.
        latency: the same shape, above 0, in the unit of ``target``.
        target: the latency at which reward and quality are equal.
        exponent: w; below 0, so that a slower network is worth less. MnasNet uses -0.07: twice the latency costs 5% of
            the quality.

    Returns:
        The same shape; NaN where either is NaN.
    """
    return quality * (latency / target) ** exponent


def check_exponent(exponent: float) -> None:
    """Refuse an exponent that would make slower networks worth more, or all of them nothing or anything."""
    if not -math.inf < exponent <= 0:
        raise ValueError(f"exponent is {exponent}, it must be a number of at most 0: a slower network is worth less")


def below_zero(name: str, quality: float, cure: str) -> str:
    """What to say of a quality below 0.

    Args:
        name: of the quality.
        quality: its value.
        cure: what to do.
    """
    return f"the quality, '{name}', is {quality:.3g}; below 0 a slower network would be worth more: {cure}"
