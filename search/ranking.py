"""Rank correlations between what a supernet says of architectures and what stand-alone training gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CIFAR_BIN = 1e-3
"""Accuracies closer than 0.1% are one rank, on CIFAR (Landmark Regularization's public code)."""


def sparse_ranks(accuracies: Sequence[float] | np.ndarray, threshold: float = CIFAR_BIN) -> np.ndarray:
    """Ranks that architectures share whose accuracies fall into one bin (Yu et al., ICLR 2020; public code).

    Args:
        accuracies: ``[n]`` in [0, 1], or in % where their mean is above 1.
        threshold: width of a bin, on the scale of 0 to 1.

    Returns:
        Int64 ``[n]``, 0 or -1 the lowest: architectures of one bin share a rank, whatever lies between bins.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    if 1 < values.mean() < 100:
        values = values / 100
    order = np.argsort(values, kind="stable")
    bins = np.floor(values[order] / threshold)
    # The rank before the first value is -1 and the value 0.0, so that an accuracy of 0 keeps -1.
    rises = np.diff(bins, prepend=0.0) > 0
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.cumsum(rises) - 1
    return ranks


def sparse_kendall_tau(
    accuracies: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray, threshold: float = CIFAR_BIN
) -> float:
    """S-KdT exactly as Landmark Regularization's code computes it.

    It correlates the sorted sparse ranks with the same ranks in the order of the predictions: tau-b of two lists that
    are permutations of each other, which is close to, but not, tau-b between predictions and binned accuracies.

    Args:
        accuracies: of stand-alone training, ``[n]``.
        predicted: by the supernet, ``[n]``, higher is better.
        threshold: as for `sparse_ranks`.

    Returns:
        In [-1, 1]; NaN where all accuracies fall into one bin.
    """
    from scipy.stats import kendalltau

    ranks = sparse_ranks(accuracies, threshold)
    # One without a score, as of a network that diverged, is the last; NumPy would sort it behind every number.
    known = np.nan_to_num(np.asarray(predicted, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    listed = ranks[np.argsort(known, kind="stable")]
    return float(kendalltau(np.sort(ranks), listed).statistic)


def kendall_tau(accuracies: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b; NaN where one of the two is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(np.asarray(accuracies), np.asarray(predicted)).statistic)
