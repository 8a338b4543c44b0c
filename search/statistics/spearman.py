"""Spearman's rank correlation with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spearman_interval(
    one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Spearman's correlation of two lists and its 95% interval, the percentiles of pairs drawn with replacement.

    Args:
        one: ``[n]``, without NaN.
        other: ``[n]``, likewise.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        Correlation, low end, high end; three NaN where one list has all values equal. Draws in which that is so have no
        correlation and are left out.

    Raises:
        ValueError: the lists have different lengths, or fewer than 3 values.
    """
    from scipy.stats import rankdata

    pairs = np.stack([np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)])
    if pairs.shape[1] < 3:
        raise ValueError(f"there are {pairs.shape[1]} pairs, a rank correlation needs 3")
    drawn = np.random.default_rng(seed).integers(pairs.shape[1], size=(draws, pairs.shape[1]))
    whole = _pearson(*(rankdata(each)[None] for each in pairs))[0]
    if np.isnan(whole):
        return (float("nan"),) * 3
    spread = _pearson(*(rankdata(each[drawn], axis=1) for each in pairs))
    low, high = np.quantile(spread[~np.isnan(spread)], [0.025, 0.975])
    return float(whole), float(low), float(high)


def _pearson(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each row; NaN where a row of either has all values equal."""
    one, other = (each - each.mean(1, keepdims=True) for each in (one, other))
    norm = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.divide((one * other).sum(1), norm, out=np.full(len(one), np.nan), where=norm > 1e-9)
