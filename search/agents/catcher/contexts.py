"""What a context encoder makes of tasks: where it places them, and whether related ones come to lie together.

CATCH (sec. 3.1) expects of the latent context that it tells tasks apart by what works on them. Here histories of many
tasks are encoded by one agent, seen from the two directions in which they differ most, and put to a test.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from search.agents.catcher.agent import CATCHer, normalise

_CHUNK = 2**21
"""Numbers that a step of the permutation test holds at once."""


@torch.no_grad()
def encode_histories(agent: CATCHer, archs: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior over the context given each of many histories.

    Args:
        agent: its trial 0's encoder is asked; the agent stays as it is.
        archs: int64 ``[n, k, decisions]``: ``n`` histories of ``k`` networks.
        rewards: ``[n, k]``, NaN where an evaluation failed: it counts as the worst of its history (as 0 where all did).

    Returns:
        Means and variances, float64 ``[n, latent]``.
    """
    worst = rewards.nan_to_num(nan=torch.inf).min(1, keepdim=True).values
    told = torch.where(rewards.isnan(), torch.where(worst.isinf(), 0.0, worst), rewards)
    codes = agent.codes(archs).to(agent.dtype)
    relative = normalise(told.double(), agent.settings.normalisation).to(agent.dtype)
    # The encoder takes a history a trial: trial 0's weights stand in for every one, without being copied.
    weights = {
        name: value[:1].expand(len(archs), *value.shape[1:]) for name, value in agent.encoder.state_dict().items()
    }
    mean, variance = functional_call(agent.encoder, weights, (codes, relative))
    return mean[:, -1].double(), variance[:, -1].double()


def project(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points along their first two principal components.

    Args:
        points: ``[n, dimensions]``.

    Returns:
        Coordinates float64 ``[n, 2]`` with mean zero, and the share of the variance that each component has,
        float64 ``[2]``; zero where the points have fewer directions to differ in. The sign of a component is such that
        its largest entry is positive.
    """
    centred = points.double() - points.double().mean(0)
    _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
    coordinates, explained = torch.zeros(len(points), 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    total = float(spread.square().sum())
    # Rounding is no direction: equal points lie on each other.
    kept = int((spread[:2] > 1e-12 * (1.0 + float(points.abs().max()))).sum()) if total else 0
    for component in range(kept):
        axis = axes[component]
        coordinates[:, component] = centred @ (axis * axis[axis.abs().argmax()].sign())
        explained[component] = spread[component].square() / total
    return coordinates, explained


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing their mean rank: ``[n]`` to float64 ``[n]``."""
    _, group, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2).double()[group]


def ranking_dissimilarities(scores: Tensor) -> Tensor:
    """One less Spearman's correlation between what any two tasks score the same architectures.

    Args:
        scores: ``[tasks, architectures]``; an architecture that has a NaN on any task is left out.

    Returns:
        Float64 ``[tasks, tasks]``: 0 where two tasks rank alike, 2 where one reverses the other; NaN for a task that
        scores everything the same.
    """
    known = scores[:, ~scores.isnan().any(0)]
    ranks = torch.stack([average_ranks(row) for row in known])
    centred = ranks - ranks.mean(1, keepdim=True)
    lengths = centred.square().sum(1).sqrt()
    return 1.0 - (centred @ centred.T) / torch.outer(lengths, lengths)


def mantel(
    distances: Tensor, dissimilarities: Tensor, generator: torch.Generator, permutations: int = 9999
) -> tuple[float, float]:
    """Whether what lies close is alike: Mantel's test (1967) with Spearman's correlation.

    The pairs of n objects are not independent of each other, so the objects are permuted, not the pairs.

    Args:
        distances: ``[n, n]``, symmetric.
        dissimilarities: ``[n, n]``, symmetric, of the same objects.
        generator: of the permutations.
        permutations: how many are drawn.

    Returns:
        Spearman's correlation over the n (n - 1) / 2 pairs, and the one-sided p-value: the share of permutations, the
        given order among them, that correlate at least as much. NaN and 1 where either has equal values throughout.

    Raises:
        ValueError: fewer than three objects, or matrices of other shapes.
    """
    n = len(distances)
    if n < 3 or distances.shape != (n, n) or dissimilarities.shape != (n, n):
        raise ValueError(
            f"mantel: two matrices [n, n] with n of at least 3 are needed, not {list(distances.shape)} and "
            f"{list(dissimilarities.shape)}"
        )
    upper = torch.triu_indices(n, n, 1)
    first = _standardised_ranks(distances[upper[0], upper[1]])
    second = torch.zeros(n, n, dtype=torch.float64)
    second[upper[0], upper[1]] = _standardised_ranks(dissimilarities[upper[0], upper[1]])
    second = second + second.T
    observed = float(first @ second[upper[0], upper[1]])
    if not first.any() or not second.any():
        return float("nan"), 1.0
    as_much = 1
    left = permutations
    while left:
        count = min(left, max(1, _CHUNK // upper.shape[1]))
        orders = torch.rand(count, n, generator=generator, dtype=torch.float64).argsort(1)
        correlations = second[orders[:, upper[0]], orders[:, upper[1]]] @ first
        as_much += int((correlations >= observed - 1e-12).sum())
        left -= count
    return observed, as_much / (permutations + 1)


def _standardised_ranks(values: Tensor) -> Tensor:
    """Ranks of mean 0 and length 1, whose dot product is Spearman's correlation; zero where all values are equal."""
    ranks = average_ranks(values)
    centred = ranks - ranks.mean()
    length = centred.square().sum().sqrt()
    return centred / length if length > 0 else torch.zeros_like(centred)
