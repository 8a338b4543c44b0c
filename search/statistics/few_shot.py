"""Values of many items from measurements of a few: which to measure, and what follows for the others.

The model is linear: a value is a constant, plus the item's features times weights, plus noise. The weights are normal a
priori, independent and of equal variance, so the length of a feature column says how much it is expected to matter.
Nothing is known of the constant or of the values' scale. That is ridge regression, and in the place of the items a
Gaussian process with the kernel ``features @ features.T`` and an unknown mean (universal kriging; Rasmussen and
Williams, "Gaussian Processes for Machine Learning", 2006, sec. 2.7).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_VAGUE = 1e4
"""Prior variance of the constant where items are chosen, next to 1 of a weight; it only has to be large."""


def most_informative(features: Tensor, n: int, candidates: Tensor, noise: float) -> Tensor:
    """Items to measure, so that the values of all are known best.

    One after another, each the candidate whose measurement would leave the smallest variance, summed over all items
    (greedy integrated variance, in experimental design V- or I-optimality). Which are chosen does not depend on what is
    measured.

    Args:
        features: float64 ``[items, k]``.
        n: how many.
        candidates: int64 ``[m]``, different items; the first of equally good ones is taken.
        noise: variance of a measurement, as a share of a weight's.

    Returns:
        Int64 ``[n]``, different ones of ``candidates``, in the order of choosing.

    Raises:
        ValueError: there are fewer candidates than that.
    """
    if not 1 <= n <= len(candidates):
        raise ValueError(f"{n} items are to be chosen of {len(candidates)}")
    rows = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
    covariance = torch.eye(rows.shape[1], dtype=rows.dtype)
    covariance[-1, -1] = _VAGUE
    everywhere, offered = rows.T @ rows, rows[candidates]
    chosen: list[int] = []
    for _ in range(n):
        along = offered @ covariance
        variance = (along * offered).sum(1)
        gain = ((along @ everywhere) * along).sum(1) / (variance + noise)
        gain[chosen] = -torch.inf
        best = int(gain.argmax())
        chosen.append(best)
        covariance = covariance - torch.outer(along[best], along[best]) / (variance[best] + noise)
    return candidates[chosen]


def predict_from_few(features: Tensor, measured: Tensor, values: Tensor, noises: Sequence[float]) -> Tensor:
    """The values of all items, from measurements of a few.

    Args:
        features: float64 ``[items, k]``.
        measured: int64 ``[n]``, the items that were measured.
        values: float64 ``[n]``, what that gave.
        noises: variances of a measurement to choose among, as shares of a weight's; the one under which what was
            measured is likeliest is taken (marginal likelihood, the constant and the scale integrated out).

    Returns:
        Float64 ``[items]``; the measured ones too are predicted, for their measurements are noisy.
    """
    rows = features[measured]
    kernel, ones = rows @ rows.T, torch.ones(len(rows), 1, dtype=rows.dtype)
    best, found = -torch.inf, torch.zeros(len(features), dtype=rows.dtype)
    for noise in noises:
        triangle = torch.linalg.cholesky(kernel + noise * torch.eye(len(rows), dtype=rows.dtype))
        solved = torch.cholesky_solve(torch.cat([ones, values[:, None]], dim=1), triangle)
        precision = solved[:, 0].sum()
        constant = solved[:, 1].sum() / precision
        dual = solved[:, 1] - constant * solved[:, 0]
        spread = ((values - constant) @ dual).clamp(min=torch.finfo(rows.dtype).tiny)
        evidence = -(len(rows) - 1) / 2 * spread.log() - triangle.diagonal().log().sum() - precision.log() / 2
        if float(evidence) > best:
            best, found = float(evidence), constant + features @ (rows.T @ dual)
    return found
