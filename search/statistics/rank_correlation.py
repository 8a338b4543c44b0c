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
    """S-KdT; where no two predictions are equal, exactly as Landmark Regularization's code computes it.

    It correlates the sorted sparse ranks with the same ranks in the order of the predictions: tau-b of two lists that
    are permutations of each other, which is close to, but not, tau-b between predictions and binned accuracies. Equal
    predictions have no order; that code leaves them in the order of the list, which may be the truth's. Here they count
    as the mean over all their orders.

    Args:
        accuracies: of stand-alone training, ``[n]``.
        predicted: by the supernet, ``[n]``, higher is better.
        threshold: as for `sparse_ranks`.

    Returns:
        In [-1, 1]; 0 where all predictions are equal; NaN where all accuracies fall into one bin.
    """
    _, bins, members = np.unique(sparse_ranks(accuracies, threshold), return_inverse=True, return_counts=True)
    _, groups, sizes = np.unique(_known(predicted), return_inverse=True, return_counts=True)
    pairs = len(bins) ** 2 - np.square(members).sum()
    if not pairs:
        return float("nan")
    if len(sizes) == 1:
        return 0.0  # exactly
    ideal, listed = np.zeros((2, len(sizes), len(members)))
    np.add.at(ideal, (np.sort(groups), np.sort(bins)), 1)
    np.add.at(listed, (groups, bins), 1)
    # At how many places of the two lists which two ranks meet, on average over the orders of equal predictions.
    meetings = (ideal / sizes[:, None]).T @ listed
    above = np.sign(np.subtract.outer(np.arange(len(members)), np.arange(len(members))))
    # Every pair of places counts as often as it agrees, less as often as it disagrees. Pairs of one group cancel out.
    return float((meetings * (above @ meetings @ above.T)).sum() / pairs)


def kendall_tau(accuracies: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b; 0 where all predictions are equal, NaN where all accuracies are."""
    from scipy.stats import kendalltau

    truth, known = np.asarray(accuracies, dtype=np.float64), _known(predicted)
    if len(np.unique(known)) == 1 < len(np.unique(truth)):
        return 0.0
    return float(kendalltau(truth, known).statistic)


def spearman(accuracies: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation, ties in the middle; 0 where all predictions are equal, NaN where all accuracies."""
    from scipy.stats import rankdata

    truth, known = rankdata(np.asarray(accuracies, dtype=np.float64)), rankdata(_known(predicted))
    if np.ptp(truth) == 0:
        return float("nan")
    return 0.0 if np.ptp(known) == 0 else float(np.corrcoef(truth, known)[0, 1])


def _known(predicted: Sequence[float] | np.ndarray) -> np.ndarray:
    """Predictions; one without a score, as of a network that diverged, is below every other."""
    return np.nan_to_num(np.asarray(predicted, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
