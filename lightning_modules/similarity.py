"""Representational similarity: how alike a network and a brain tell stimuli apart (Kriegeskorte et al., 2008).

The human-model similarity, HMS, of Blanchard et al. (CVPR 2019) is Spearman's correlation between two matrices over the
same stimuli: how unlike the network's activations to each pair of them are, and how unlike those of human inferior
temporal cortex, IT.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def dissimilarity(activations: Tensor) -> Tensor:
    """The representational dissimilarity matrix: 1 - Pearson's correlation of every pair of stimuli.

    A stimulus that leaves all units alike correlates with nothing, and its distance to every other one is 1.

    Args:
        activations: ``[stimuli, units]``, or more dimensions of units.

    Returns:
        Float64 ``[stimuli, stimuli]``, zeros on its diagonal; NaN where activations are not finite.
    """
    rows = activations.flatten(1).double()
    # On one scale first: squares of very large or small activations would leave the range of numbers.
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    rows = rows - rows.mean(1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    # What rounding leaves of equal activations is no pattern.
    rows = torch.where(norms > 1e-12 * rows.shape[1] ** 0.5, rows / norms, rows * 0.0)
    products = rows @ rows.T
    return (1 - (products + products.T) / 2).fill_diagonal_(0.0)  # to the last bit symmetric


def upper_triangle(matrix: Tensor) -> Tensor:
    """The pairs of a symmetric matrix, row by row: ``[..., n, n]`` to ``[..., n (n - 1) / 2]``."""
    count = matrix.shape[-1]
    first, second = torch.triu_indices(count, count, offset=1, device=matrix.device)
    return matrix[..., first, second]


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1; equal values share the mean of theirs: ``[n]`` to float64 ``[n]``."""
    _, group, sizes = torch.unique(values, return_inverse=True, return_counts=True)
    return (sizes.cumsum(0) - (sizes - 1) / 2).double()[group]


def spearman(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation of two lists ``[n]``; 0 where one has all values equal, NaN where one has a NaN."""
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise ValueError(f"spearman: {list(one.shape)} and {list(other.shape)}, two lists of one length are needed")
    if one.isnan().any() or other.isnan().any():
        return float("nan")
    first, second = (each - each.mean() for each in (ranks(one), ranks(other)))
    norm = first.norm() * second.norm()
    return float(first @ second / norm) if norm > 0 else 0.0


def human_model_similarity(activations: Tensor, reference: Tensor) -> float:
    """HMS (Blanchard et al., CVPR 2019): how the distances of a network rank like those of a reference.

    Args:
        activations: of the network, ``[stimuli, units]``.
        reference: dissimilarities of the same stimuli, ``[stimuli, stimuli]``.

    Returns:
        In [-1, 1]; NaN where activations are not finite.

    Raises:
        ValueError: the reference is of other stimuli.
    """
    if reference.shape != (len(activations), len(activations)):
        raise ValueError(f"the reference is {list(reference.shape)}, the activations are of {len(activations)} stimuli")
    return spearman(upper_triangle(dissimilarity(activations)), upper_triangle(reference.to(activations.device)))


def noise_ceiling(subjects: Tensor) -> tuple[float, float]:
    """Between which two numbers the best possible model of some subjects lies (Nili et al., 2014).

    Args:
        subjects: dissimilarities of each subject, ``[subjects, stimuli, stimuli]``.

    Returns:
        The mean correlation of a subject with the mean of the others, and with the mean of all.

    Raises:
        ValueError: there is one subject only.
    """
    pairs = upper_triangle(subjects.double())
    if len(pairs) < 2:
        raise ValueError(f"a noise ceiling needs 2 subjects or more, there is {len(pairs)}")
    whole = pairs.mean(0)
    others = (pairs.sum(0) - pairs) / (len(pairs) - 1)
    lower = [spearman(each, rest) for each, rest in zip(pairs, others, strict=True)]
    upper = [spearman(each, whole) for each in pairs]
    return sum(lower) / len(lower), sum(upper) / len(upper)


def bootstrap_interval(
    matrix: Tensor, reference: Tensor, seed: int = 0, draws: int = 1000, share: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of Spearman's correlation of two matrices over resampled stimuli.

    Stimuli are drawn with replacement, not pairs, which are not independent. Pairs of a stimulus with itself are left
    out: their distance is 0 in every matrix (Nili et al., 2014).

    Args:
        matrix: dissimilarities, ``[stimuli, stimuli]``.
        reference: likewise.
        seed: of the draws.
        draws: how many.
        share: of the draws that lie within.

    Raises:
        ValueError: there are fewer than 3 stimuli.
    """
    if len(matrix) < 3:
        raise ValueError(f"an interval over stimuli needs 3 or more, there are {len(matrix)}")
    generator, values = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        drawn = torch.randint(len(matrix), (len(matrix),), generator=generator)
        different = upper_triangle(drawn[:, None] != drawn)
        if different.sum() < 2:
            continue  # of few stimuli, one and the same again and again
        one, other = (upper_triangle(each.cpu()[drawn][:, drawn])[different] for each in (matrix, reference))
        values.append(spearman(one, other))
    ends = torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=torch.float64)
    low, high = torch.tensor(values, dtype=torch.float64).quantile(ends).tolist()
    return low, high


def matching_accuracy(gallery: Tensor, probes: Tensor) -> float:
    """How often the most similar picture of a gallery shows the object of the probe, by cosine similarity.

    Args:
        gallery: activations to a picture of each object, ``[objects, units]``.
        probes: to another picture of each, in the same order.

    Returns:
        In %. A tie counts as its share: of equal activations nothing is found but by chance.
    """
    one, other = (torch.nn.functional.normalize(each.flatten(1).double(), dim=1) for each in (gallery, probes))
    likeness = other @ one.T
    best = likeness >= likeness.amax(1, keepdim=True) - 1e-12
    return float(100 * (best.diagonal() / best.sum(1)).mean())


def check_matrix(matrix: Tensor, stimuli: int, name: str) -> Tensor:
    """Dissimilarities as a square float64 matrix, from a square one or its upper triangle, row by row.

    Raises:
        ValueError: it is neither, of so many stimuli, is not symmetric, or has no two different distances.
    """
    if matrix.shape == (stimuli * (stimuli - 1) // 2,):
        first, second = torch.triu_indices(stimuli, stimuli, offset=1)
        square = torch.zeros(stimuli, stimuli, dtype=torch.float64)
        square[first, second] = matrix.double()
        matrix = square + square.T
    if matrix.shape != (stimuli, stimuli):
        raise ValueError(f"{name} is {list(matrix.shape)}, {_allowed(stimuli)} is needed")
    matrix = matrix.double()
    pairs = upper_triangle(matrix)
    if not torch.allclose(pairs, upper_triangle(matrix.T), atol=1e-5) or not pairs.isfinite().all():
        raise ValueError(f"{name} is not symmetric, or has distances that are not finite")
    if pairs.unique().numel() < 2:
        raise ValueError(f"{name} has one distance for all pairs, which ranks nothing")
    return matrix


def _allowed(stimuli: int) -> str:
    sizes: Sequence[int] = (stimuli, stimuli * (stimuli - 1) // 2)
    return f"[{sizes[0]}, {sizes[0]}] or its upper triangle [{sizes[1]}]"
