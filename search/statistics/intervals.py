"""Confidence intervals of means and shares."""

from __future__ import annotations

import math

import numpy as np


def mean_interval(values: np.ndarray, within: tuple[float, float] = (-math.inf, math.inf)) -> list[float] | None:
    """95% confidence interval of the mean of some values (Student's t).

    Args:
        values: float64 ``[n]``.
        within: the least and the largest value that there can be. Of few values an interval may reach beyond; it is cut
            there, for the mean lies within.

    Returns:
        None for one value, and where values are so large that there is no number for it.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / math.sqrt(len(values))
    ends = [float(values.mean() - half), float(values.mean() + half)]
    return [min(max(end, within[0]), within[1]) for end in ends] if all(map(math.isfinite, ends)) else None


def share_interval(hits: float, n: float) -> list[float]:
    """95% confidence interval of a share (Wilson 1927), sound near 0 and 1 too."""
    z = 1.959963984540054
    centre = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return [max(0.0, centre - half), min(1.0, centre + half)]
