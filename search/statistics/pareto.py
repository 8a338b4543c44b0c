"""Two objectives at once: which points are worth having, and how much of the space they leave behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def oriented(points: Tensor, directions: Sequence[str]) -> Tensor:
    """The same points where higher is better in every objective.

    Args:
        points: ``[..., objectives]``.
        directions: ``max`` or ``min`` for each objective.

    Raises:
        ValueError: another number of directions than objectives, or a direction that is neither.
    """
    if len(directions) != points.shape[-1] or not set(directions) <= {"max", "min"}:
        raise ValueError(f"directions is {list(directions)}: 'max' or 'min' for each of {points.shape[-1]} objectives")
    return points * points.new_tensor([1.0 if direction == "max" else -1.0 for direction in directions])


def pareto_front(points: Tensor, directions: Sequence[str]) -> Tensor:
    """Which points no other one dominates, that is: is as good in both objectives and better in one.

    Args:
        points: ``[n, 2]``.
        directions: ``max`` or ``min`` for each objective.

    Returns:
        Bool ``[n]``. Equal points are on the front together; a point with a NaN is not on it, nor in another's way.

    Raises:
        ValueError: there are not two objectives, or a direction is neither ``max`` nor ``min``.
    """
    first, second = _two(oriented(points, directions)).unbind(-1)
    measured = ~(first.isnan() | second.isnan())
    front = torch.zeros_like(measured)
    if not measured.any():
        return front
    first, (costs, group) = first[measured], (-second[measured]).unique(return_inverse=True)
    best = first.new_full(costs.shape, -torch.inf).scatter_reduce(0, group, first, "amax")
    best_if_cheaper = torch.cat([best.new_full((1,), -torch.inf), best.cummax(0).values[:-1]])
    front[measured] = (first == best[group]) & (first > best_if_cheaper[group])
    return front


def hypervolume(points: Tensor, reference: Tensor, directions: Sequence[str]) -> Tensor:
    """The area that points dominate, down to a reference point (Zitzler and Thiele, 1998); exact.

    Args:
        points: ``[..., n, 2]``; a point that has a NaN, or is not better than the reference in both objectives, adds
            nothing.
        reference: ``[2]``, no better than what is worth counting.
        directions: ``max`` or ``min`` for each objective.

    Returns:
        ``[...]``, in the product of the objectives' units.

    Raises:
        ValueError: there are not two objectives, or a direction is neither ``max`` nor ``min``.
    """
    gains = _two(oriented(points, directions)) - oriented(reference, directions)
    gains = torch.where(gains.isnan().any(-1, keepdim=True), 0.0, gains).clamp(min=0.0)
    width, order = gains[..., 0].sort(dim=-1, descending=True)
    # Strips between neighbouring widths, each as high as the highest of all points that are at least as wide.
    height = gains[..., 1].gather(-1, order)
    if not width.shape[-1]:
        return width.sum(-1)
    following = torch.cat([width[..., 1:], torch.zeros_like(width[..., :1])], -1)
    return ((width - following) * height.cummax(-1).values).sum(-1)


def _two(points: Tensor) -> Tensor:
    if points.shape[-1] != 2:
        raise ValueError(f"there are {points.shape[-1]} objectives, 2 are needed")
    return points
