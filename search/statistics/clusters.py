"""Statistics of trials that are not independent: those of one meta-training share its luck.

Trial ``k`` of a search starts from meta-training ``k`` modulo their number. What is independent are the
meta-trainings, so intervals and tests are over the means of each one's trials (a cluster's mean; Student's t over
these, Donner and Klar 2000, ch. 6). A single meta-training has no spread: then trials stand for themselves, and what is
said holds for its weights alone.
"""

from __future__ import annotations

import math

import numpy as np

from search.statistics.intervals import mean_interval, share_interval
from search.statistics.significance import rank_test


def shares_luck(trials: int, clusters: int | None) -> bool:
    """Whether so many trials of so many meta-trainings depend on each other in a way that can be counted."""
    return clusters is not None and 1 < clusters < trials


def independent_values(values: np.ndarray, clusters: int | None) -> np.ndarray:
    """One number for each meta-training: the mean of its trials.

    Args:
        values: float64 ``[trials]``, NaN where a trial has none.
        clusters: meta-trainings, dealt out to the trials in turn; None where trials are independent.

    Returns:
        Float64 ``[<= clusters]``, without those of which no trial has a value; all that are no NaN where trials are
        independent, or there is a single meta-training.
    """
    if not shares_luck(len(values), clusters):
        return values[~np.isnan(values)]
    assert clusters is not None
    rows = [values[k::clusters] for k in range(clusters)]
    return np.array([row[~np.isnan(row)].mean() for row in rows if not np.isnan(row).all()])


def clustered_mean_interval(
    values: np.ndarray, clusters: int | None, within: tuple[float, float] = (-math.inf, math.inf)
) -> list[float] | None:
    """95% interval of the mean of ``[trials]`` values, over meta-trainings (`independent_values`).

    Args:
        values: float64 ``[trials]``, NaN where a trial has none.
        clusters: as for `independent_values`.
        within: as for `mean_interval`.
    """
    return mean_interval(independent_values(values, clusters), within)


def clustered_share_interval(hits: np.ndarray, clusters: int | None) -> list[float]:
    """95% interval of a share, over meta-trainings: Wilson's, with as many trials as the spread between these leaves.

    The number of trials that independent ones would have to be to vary as much (Korn and Graubard 1998, with their
    correction for few clusters); never fewer than there are meta-trainings, nor more than there are trials.

    Args:
        hits: bool ``[trials]``.
        clusters: as for `independent_values`.
    """
    n, share = len(hits), float(hits.mean())
    if not shares_luck(n, clusters):
        return share_interval(int(hits.sum()), n)
    assert clusters is not None
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    spread = independent_values(hits.astype(np.float64), clusters).var()
    alike = share * (1 - share) / spread if spread else float(clusters if share in (0, 1) else n)
    effective = min(float(n), max(float(clusters), alike * (1.959963984540054 / stdtrit(clusters - 1, 0.975)) ** 2))
    return share_interval(share * effective, effective)


def clustered_rank_test(a: np.ndarray, b: np.ndarray, clusters: tuple[int | None, int | None]) -> float | None:
    """`rank_test` of two searches: over trials, or over means of as many trials on either side.

    Args:
        a: float64 ``[trials]``, NaN where a trial has none.
        b: likewise.
        clusters: meta-trainings of each. Where one of them, or both, have fewer than trials, both are cut into as many
            groups: means of five trials and single trials are not exchangeable, even where nothing is meta-learned.

    Returns:
        None where there are too few groups.
    """
    shared = [k for k, n in zip(clusters, (len(a), len(b)), strict=True) if shares_luck(n, k)]
    groups = min((k for k in shared if k is not None), default=None)
    # 16 of one and 100 of the other do not fit into each other: then each has its own.
    if groups is not None and all(k is not None and k % groups == 0 for k in shared):
        return rank_test(independent_values(a, groups), independent_values(b, groups))
    return rank_test(independent_values(a, clusters[0]), independent_values(b, clusters[1]))


def described_trials(trials: int, clusters: int | None) -> str:
    """``500 trials``, or ``20 meta-trainings x 25 trials``."""
    if not shares_luck(trials, clusters):
        return f"{trials} trials"
    assert clusters is not None
    few, rest = divmod(trials, clusters)
    each = f"{few} to {few + 1} trials" if rest else f"{few} trial{'' if few == 1 else 's'}"
    return f"{clusters} meta-trainings x {each}"
