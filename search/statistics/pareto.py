"""Several objectives at once: which points are worth having, and how much of the space they leave behind."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
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
    """Which points no other one dominates, that is: is as good in every objective and better in one.

    Takes time in proportion to the size of the front times the number of points, and no more memory than these.

    Args:
        points: ``[n, objectives]``.
        directions: ``max`` or ``min`` for each objective.

    Returns:
        Bool ``[n]``. Equal points are on the front together; a point with a NaN is not on it, nor in another's way.

    Raises:
        ValueError: a direction is neither ``max`` nor ``min``, or there is not one for each objective.
    """
    values = oriented(points, directions).numpy()
    left = np.flatnonzero(~np.isnan(values).any(1))
    # A point is behind whatever dominates it in this order, so the first of those that are left is on the front.
    left = left[np.lexsort(-values[left].T)]
    front = torch.zeros(len(values), dtype=torch.bool)
    while len(left):
        first, rest = values[left[0]], values[left]
        equal = (rest == first).all(1)
        front[left[equal]] = True
        left = left[(rest > first).any(1)]
    return front


def non_dominated_ranks(points: Tensor, directions: Sequence[str], violation: Tensor | None = None) -> Tensor:
    """The front that each point is on when one front after another is taken away (Deb et al., 2002, sec. III-A).

    Args:
        points: ``[..., n, objectives]``; what comes before the last two dimensions are sets of their own.
        directions: ``max`` or ``min`` for each objective.
        violation: ``[..., n]``, by how much constraints are broken, 0 where none is. A smaller violation dominates a
            larger one, whatever the objectives (sec. VI-A).

    Returns:
        Int64 ``[..., n]``, 0 for the points that nothing dominates. A point with a NaN dominates nothing and is
        dominated by nothing but a smaller violation.

    Raises:
        ValueError: as for `pareto_front`.
    """
    dominating = dominates(points, directions, violation)
    ranks = torch.zeros(points.shape[:-1], dtype=torch.long)
    left = torch.ones_like(ranks, dtype=torch.bool)
    while left.any():
        behind = (dominating & left.unsqueeze(-1)).any(-2)
        left &= behind
        ranks += left
    return ranks


def dominates(points: Tensor, directions: Sequence[str], violation: Tensor | None = None) -> Tensor:
    """Which point dominates which; arguments as for `non_dominated_ranks`.

    Returns:
        Bool ``[..., n, n]``: whether the point of the row dominates that of the column.
    """
    values = oriented(points, directions)
    shape = (*values.shape[:-1], values.shape[-2])
    as_good, better = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for objective in values.unbind(-1):
        one, other = objective.unsqueeze(-1), objective.unsqueeze(-2)
        as_good &= one >= other
        better |= one > other
    if violation is None:
        return as_good & better
    one, other = violation.unsqueeze(-1), violation.unsqueeze(-2)
    return (one < other) | ((one == other) & as_good & better)


def crowding_distance(points: Tensor, ranks: Tensor) -> Tensor:
    """How much room a point has on its front (Deb et al., 2002, sec. III-B).

    The distance between its two neighbours, summed over the objectives, each as a share of the front's range.

    Args:
        points: ``[..., n, objectives]``; a direction makes no difference.
        ranks: int64 ``[..., n]``, as `non_dominated_ranks` gives them.

    Returns:
        ``[..., n]``; infinite at the ends of a front.
    """
    distance = torch.zeros_like(points[..., 0])
    for objective in points.unbind(-1):
        order = objective.argsort(dim=-1, stable=True)
        order = order.gather(-1, ranks.gather(-1, order).argsort(dim=-1, stable=True))
        value, rank = objective.gather(-1, order), ranks.gather(-1, order)
        edge = torch.ones_like(rank[..., :1], dtype=torch.bool)
        begins = torch.cat([edge, rank[..., 1:] != rank[..., :-1]], -1)
        ends = torch.cat([begins[..., 1:], edge], -1)
        shape = (*rank.shape[:-1], rank.shape[-1] + 1)
        low = value.new_full(shape, torch.inf).scatter_reduce(-1, rank, value, "amin").gather(-1, rank)
        high = value.new_full(shape, -torch.inf).scatter_reduce(-1, rank, value, "amax").gather(-1, rank)
        room = torch.roll(value, -1, -1) - torch.roll(value, 1, -1)
        share = torch.where(high > low, room / (high - low), 0.0)
        share = torch.where(begins | ends, torch.inf, share)
        distance += torch.zeros_like(distance).scatter(-1, order, share)
    return distance


def hypervolume(points: Tensor, reference: Tensor, directions: Sequence[str]) -> Tensor:
    """The space that points dominate, down to a reference point (Zitzler and Thiele, 1998); exact.

    Two objectives are an area. Further ones are cut into slices, each of one objective less (Knowles, 2002; While et
    al., "A Faster Algorithm for Calculating Hypervolume", 2006): the time grows with the size of the front to the power
    of the number of objectives less two.

    Args:
        points: ``[..., n, objectives]``; a point that has a NaN, or is not better than the reference in every
            objective, adds nothing.
        reference: ``[objectives]``, no better than what is worth counting.
        directions: ``max`` or ``min`` for each objective.

    Returns:
        ``[...]``, in the product of the objectives' units.

    Raises:
        ValueError: as for `pareto_front`.
    """
    gains = _gains(points, reference, directions)
    if gains.shape[-1] > 2:
        volumes = (
            [_volume(rows.numpy()) for rows in gains.flatten(0, -3)] if gains.dim() > 2 else _volume(gains.numpy())
        )
        return gains.new_tensor(volumes).reshape(gains.shape[:-2])
    if gains.shape[-1] == 1:
        gains = torch.cat([gains, torch.ones_like(gains)], -1)
    width, order = gains[..., 0].sort(dim=-1, descending=True)
    # Strips between neighbouring widths, each as high as the highest of all points that are at least as wide.
    height = gains[..., 1].gather(-1, order)
    if not width.shape[-1]:
        return width.sum(-1)
    following = torch.cat([width[..., 1:], torch.zeros_like(width[..., :1])], -1)
    return ((width - following) * height.cummax(-1).values).sum(-1)


def hypervolume_curve(points: Tensor, reference: Tensor, directions: Sequence[str]) -> Tensor:
    """The `hypervolume` of the first point, of the first two, and so on; same arguments.

    Returns:
        ``[..., n]``.
    """
    gains = _gains(points, reference, directions)
    curves = gains.new_zeros(gains.shape[:-1])
    flat, out = gains.reshape(-1, *gains.shape[-2:]).numpy(), curves.view(-1, gains.shape[-2])
    for trial, rows in enumerate(flat):
        front, volume = rows[:0], 0.0
        for k, row in enumerate(rows):
            if row.all() and not (front >= row).all(1).any():
                front = np.concatenate([front[(front > row).any(1)], row[None]])
                volume = _volume(front)
            out[trial, k] = volume
    return curves


def _gains(points: Tensor, reference: Tensor, directions: Sequence[str]) -> Tensor:
    """By how much each objective is better than the reference, or 0: ``[..., n, objectives]``."""
    gains = oriented(points, directions) - oriented(reference, directions)
    return torch.where(gains.isnan().any(-1, keepdim=True), 0.0, gains).clamp(min=0.0)


def _volume(gains: np.ndarray) -> float:
    """The hypervolume of points ``[n, objectives]`` down to zero; higher is better."""
    gains = gains[(gains > 0).all(1)]
    if gains.shape[1] > 3:
        gains = gains[pareto_front(torch.from_numpy(gains), ["max"] * gains.shape[1]).numpy()]
        gains = gains[gains[:, -1].argsort(kind="stable")[::-1]]
        thickness = gains[:, -1] - np.append(gains[1:, -1], 0.0)
        return float(sum(thick * _volume(gains[: k + 1, :-1]) for k, thick in enumerate(thickness) if thick))
    if gains.shape[1] < 3:
        gains = np.concatenate([gains, np.ones((len(gains), 3 - gains.shape[1]))], 1)
    # Slice by slice from the top, the area under the staircase of those so far grows (Fonseca et al., 2006).
    volume, area, above = 0.0, 0.0, 0.0
    xs, ys = [0.0, float("inf")], [float("inf"), 0.0]  # corners of the staircase, from left to right
    for x, y, z in gains[gains[:, 2].argsort(kind="stable")[::-1]].tolist():
        volume, above = volume + area * (above - z), z
        place = bisect_left(xs, x)
        if ys[place] >= y:
            continue  # inside of the staircase
        begin, right = place, x
        if xs[place] == x:
            place += 1
        floor = ys[place]
        while ys[begin - 1] <= y:
            begin -= 1
        for k in range(place - 1, begin - 1, -1):
            area += (right - xs[k]) * (y - floor)
            right, floor = xs[k], ys[k]
        area += (right - xs[begin - 1]) * (y - floor)
        xs[begin:place], ys[begin:place] = [x], [y]
    return volume + area * above
