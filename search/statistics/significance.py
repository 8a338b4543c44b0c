"""Whether differences between searches can be told from luck."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

SIGNIFICANT = 0.05

FEWEST_TRIALS = 4
"""Below it no arrangement of two equal samples has a two-sided p-value under 0.05: 3 against 3 reach 0.1."""
FEWEST_PAIRS = 6
"""Below it no paired randomisation test has a two-sided p-value under 0.05: 5 differences of one sign reach 0.0625."""
_MOST_ARRANGEMENTS = 2**14


def rank_test(a: np.ndarray, b: np.ndarray) -> float | None:
    """Two-sided p-value of the Mann-Whitney U test (Mann and Whitney, 1947) of two independent samples.

    Exact, over all arrangements, for samples that are small; from the normal approximation with ties corrected else.

    Args:
        a: float64 ``[n]``.
        b: float64 ``[m]``.

    Returns:
        None where a sample has fewer than `FEWEST_TRIALS` values.
    """
    if min(len(a), len(b)) < FEWEST_TRIALS:
        return None
    if (np.concatenate([a, b]) == a[0]).all():
        return 1.0
    from scipy import stats

    if math.comb(len(a) + len(b), len(a)) > 20_000:
        return float(stats.mannwhitneyu(a, b, method="asymptotic").pvalue)
    ranks = stats.rankdata(np.concatenate([a, b]))
    subsets = np.array(list(itertools.combinations(range(len(ranks)), len(a))))
    sums, expected = ranks[subsets].sum(1), len(a) * ranks.mean()
    return float(np.mean(np.abs(sums - expected) >= abs(ranks[: len(a)].sum() - expected) - 1e-9))


def paired_test(differences: np.ndarray) -> float | None:
    """Two-sided p-value of the randomisation test of paired samples (Fisher, 1935): every sign might be the other one.

    Exact up to 14 differences, from 16,384 arrangements drawn at random beyond.

    Args:
        differences: float64 ``[n]``.

    Returns:
        None for fewer than `FEWEST_PAIRS`.
    """
    n = len(differences)
    if n < FEWEST_PAIRS:
        return None
    if 2**n <= _MOST_ARRANGEMENTS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], size=(_MOST_ARRANGEMENTS, n))
        signs[0] = 1  # what was observed is one of the arrangements
    return float(np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for there being several (Holm, 1979); None stays None and does not count."""
    order = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p, k) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - place)))
        corrected[k] = largest
    return corrected
