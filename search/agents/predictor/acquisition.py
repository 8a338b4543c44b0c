"""Which prediction to follow: from means and deviations to a number that is largest where to evaluate next."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from search.agents.catcher.gaussian_process import log_expected_improvement
from search.randomness import TrialRandom

Acquisition = Literal["improvement", "confidence", "in turn", "thompson", "mean"]
"""``improvement``: expected improvement on the best; ``confidence``: upper confidence bound; ``in turn``: these two in
turn; ``thompson``: a draw from each prediction by itself (independent Thompson sampling, as in BANANAS); ``mean``."""
_TIE = 1e-6
"""Candidates this close to the most promising are as promising: which of them is asked must not hang on rounding."""


def acquire(
    how: Acquisition, mean: Tensor, deviation: Tensor, targets: Tensor, rng: TrialRandom, confidence: float = 1.0
) -> Tensor:
    """How much each candidate is worth evaluating.

    Args:
        how: see `Acquisition`.
        mean: of the normalised reward, float64 ``[trials, m]``.
        deviation: of the normalised reward, float64 ``[trials, m]``.
        targets: normalised rewards so far, float64 ``[trials, n]``.
        rng: for ``thompson``; a stream a trial.
        confidence: standard deviations above the mean of the upper confidence bound.

    Returns:
        Float64 ``[trials, m]``; larger is better.
    """
    if how == "in turn":
        how = "confidence" if targets.shape[1] % 2 else "improvement"
    if how == "improvement":
        return log_expected_improvement(mean, deviation.square(), targets.amax(1, keepdim=True))
    if how == "confidence":
        return mean + confidence * deviation
    if how == "thompson":
        return mean + deviation * rng.normal(mean.shape[1])
    return mean


def most_promising(worth: Tensor, names: Tensor, known: Tensor, rng: TrialRandom) -> Tensor:
    """The best candidate of each trial that is new, of equal ones any; where none is new, the best of all.

    Args:
        worth: float64 ``[trials, m]``, as `acquire` gives it.
        names: int64 ``[trials, m]``: equal candidates share theirs.
        known: int64 ``[trials, n]``, names of what was asked before.
        rng: a stream a trial.

    Returns:
        Places among the candidates, int64 ``[trials]``.
    """
    old = torch.stack([torch.isin(row, seen) for row, seen in zip(names, known, strict=True)])
    worth = worth.masked_fill(old & ~old.all(1, keepdim=True), -torch.inf)
    most = worth.amax(1, keepdim=True)
    as_good = worth >= most - _TIE * most.abs().clamp(min=1)
    return torch.where(as_good, rng.uniform(worth.shape[1]), -1.0).argmax(1)
