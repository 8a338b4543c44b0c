"""What it would have meant to stop a training early, told afterwards from a training that went on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stopped:
    """Where a training would have ended.

    Attributes:
        epochs: that it would have taken.
        kept: the epoch whose weights would have been kept, from 1: the best one so far by what was monitored.
    """

    epochs: int
    kept: int


def stop_early(monitored: Sequence[float], patience: int, direction: str) -> Stopped:
    """Stop where what is monitored has not become better for some epochs in a row.

    Args:
        monitored: its value after each epoch; NaN is never better.
        patience: epochs in a row without a better value, after which the training ends, 1 or more.
        direction: ``max`` or ``min``: which values are better.

    Raises:
        ValueError: there is no epoch, no such direction, or no patience.
    """
    if direction not in ("max", "min"):
        raise ValueError(f"direction is '{direction}', allowed: max, min")
    if patience < 1 or not monitored:
        raise ValueError(f"patience is {patience}, of {len(monitored)} epochs: at least 1 of both is needed")
    sign, best, kept = 1.0 if direction == "max" else -1.0, -math.inf, 1
    for epoch, value in enumerate(monitored, start=1):
        if sign * value > best:
            best, kept = sign * value, epoch
        elif epoch - kept >= patience:
            return Stopped(epoch, kept)
    return Stopped(len(monitored), kept)
