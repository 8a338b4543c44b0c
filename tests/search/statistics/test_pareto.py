"""Fronts, ranks, crowding and hypervolumes of any number of objectives."""

import itertools
import math

import pytest
import torch

from search.spaces.nasbench201 import NASBench201
from search.statistics.pareto import (
    crowding_distance,
    hypervolume,
    hypervolume_curve,
    non_dominated_ranks,
    oriented,
    pareto_front,
)
from search.tasks.base import Task
from search.tasks.latency_reward import LatencyRewardTask
from tests.search.evaluating import evaluate
from tests.search.tables.latency_tables import SIZE, column, write_latency, write_quality

NAN = float("nan")
DIRECTIONS = [*itertools.product(("max", "min"), repeat=2), ("min", "max", "max"), ("max", "min", "min", "max")]


def points(n, seed, steps=None, objectives=2):
    """``n`` points in the unit cube; with ``steps`` on a grid, so that many values are equal."""
    values = torch.rand(n, objectives, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values if steps is None else (values * steps).floor() / steps


def dominates(a, b, directions):
    """By the definition, for two rows of plain numbers."""
    pairs = [(x, y) if direction == "max" else (y, x) for x, y, direction in zip(a, b, directions, strict=True)]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


@pytest.mark.parametrize("directions", DIRECTIONS, ids="-".join)
@pytest.mark.parametrize("steps", [None, 4], ids=["continuous", "ties"])
def test_the_front_is_what_no_point_dominates(directions, steps):
    cloud = points(60, seed=1, steps=steps, objectives=len(directions))
    rows = cloud.tolist()
    expected = [not any(dominates(other, row, directions) for other in rows) for row in rows]
    assert pareto_front(cloud, directions).tolist() == expected
    assert 0 < sum(expected) < len(rows)


@pytest.mark.parametrize("directions", DIRECTIONS, ids="-".join)
@pytest.mark.parametrize("steps", [None, 4], ids=["continuous", "ties"])
@pytest.mark.parametrize("constrained", [False, True], ids=["free", "constrained"])
def test_ranks_count_the_fronts_that_are_taken_away_before(directions, steps, constrained):
    clouds = torch.stack([points(40, seed, steps, len(directions)) for seed in (5, 6, 7)])
    violation = (points(3, seed=8, objectives=40) * 6 - 3).floor().clamp(min=0.0) if constrained else None
    ranks = non_dominated_ranks(clouds, directions, violation)
    for k, rows in enumerate(clouds.tolist()):
        broken = [0.0] * len(rows) if violation is None else violation[k].tolist()

        def beats(i, j, rows=rows, broken=broken):
            return broken[i] < broken[j] or (broken[i] == broken[j] and dominates(rows[i], rows[j], directions))

        left, level = set(range(len(rows))), 0
        while left:
            front = {j for j in left if not any(beats(i, j) for i in left)}
            assert {j for j in left if ranks[k, j] == level} == front
            left, level = left - front, level + 1
        assert level > 2


def test_crowding_by_hand():
    """A front of five, its second objective twice as spread; and a front of one behind it."""
    cloud = torch.tensor([[0.0, 8.0], [1.0, 6.0], [4.0, 5.0], [2.0, 5.5], [10.0, 0.0], [-1.0, -1.0]])
    distance = crowding_distance(cloud, torch.tensor([0, 0, 0, 0, 0, 1]))
    # Of (1, 6): from 0 to 2 of 10, and from 8 to 5.5 of 8.
    inner = [0.2 + 2.5 / 8, 0.8 + 5.5 / 8, 0.3 + 1 / 8]
    assert distance.tolist() == pytest.approx([torch.inf, *inner, torch.inf, torch.inf])
    assert torch.equal(
        crowding_distance(torch.stack([cloud, cloud]), torch.tensor([[0, 0, 0, 0, 0, 1]] * 2))[1], distance
    )
    same = crowding_distance(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    assert same.isinf().sum() == 2 and not same.isnan().any()  # no range: two ends, no room between


def cells(cloud, reference, directions):
    """The hypervolume by brute force: cut space at every coordinate; each cell is dominated whole, or not at all."""
    up, foot = oriented(cloud, directions).tolist(), oriented(reference, directions).tolist()
    cuts = [sorted({f, *(p[k] for p in up if p[k] > f)}) for k, f in enumerate(foot)]
    total = 0.0
    for cell in itertools.product(*(itertools.pairwise(cut) for cut in cuts)):
        if any(all(x >= high for x, (_, high) in zip(p, cell, strict=True)) for p in up):
            total += math.prod(high - low for low, high in cell)
    return total


@pytest.mark.parametrize("directions", DIRECTIONS, ids="-".join)
@pytest.mark.parametrize("steps", [None, 5], ids=["continuous", "ties"])
def test_hypervolume_counts_the_cells_that_a_point_dominates(directions, steps):
    objectives = len(directions)
    cloud = points(25 if objectives == 2 else 11, seed=2, steps=steps, objectives=objectives)
    worst = {"max": 0.3, "min": 0.6} if objectives == 2 else {"max": 0.1, "min": 0.9}
    reference = torch.tensor([worst[direction] for direction in directions], dtype=torch.float64)
    expected = cells(cloud, reference, directions)
    assert expected > 0
    assert float(hypervolume(cloud, reference, directions)) == pytest.approx(expected, rel=1e-12)
    curve = hypervolume_curve(cloud, reference, directions)
    for k in (0, len(cloud) // 2, len(cloud) - 1):
        assert float(curve[k]) == pytest.approx(cells(cloud[: k + 1], reference, directions), rel=1e-12)
    several = hypervolume_curve(torch.stack([cloud.flip(0), cloud]), reference, directions)
    assert torch.equal(several[1], curve)


@pytest.mark.parametrize("objectives", [3, 5])
def test_hypervolume_is_the_share_of_random_points_that_are_dominated(objectives):
    n, drawn = 40, 40_000
    cloud, thrown = points(n, seed=3, objectives=objectives), points(drawn, seed=4, objectives=objectives)
    hit = (thrown[:, None] <= cloud).all(-1).any(-1).double()
    exact = float(hypervolume(cloud, torch.zeros(objectives).double(), ["max"] * objectives))
    error = float(hit.std()) / drawn**0.5
    assert 0.05 < exact < 0.95 and abs(exact - float(hit.mean())) < 4 * error


def test_hypervolume_by_hand_with_gaps_and_many_sets_at_once():
    """Accuracy up, latency down, from (10%, 5 ms): 40% for 4 ms, and 20% more for 3 of them."""
    directions, reference = ["max", "min"], torch.tensor([10.0, 5.0])
    first = torch.tensor([[50.0, 1.0], [70.0, 2.0], [NAN, 0.5], [95.0, NAN], [5.0, 0.1], [90.0, 6.0]])
    nothing = torch.full((6, 2), NAN)
    both = hypervolume(torch.stack([first, nothing, first.flip(0)]), reference, directions)
    assert both.tolist() == [40 * 4 + 20 * 3, 0.0, 40 * 4 + 20 * 3]
    assert float(hypervolume(torch.zeros(0, 2), reference, directions)) == 0.0
    # A set has its front's volume.
    cloud, corner = points(80, seed=3), torch.tensor([0.0, 1.0], dtype=torch.float64)
    front = cloud[pareto_front(cloud, directions)]
    assert float(hypervolume(front, corner, directions)) == pytest.approx(float(hypervolume(cloud, corner, directions)))
    assert float(hypervolume(front[1:], corner, directions)) < float(hypervolume(front, corner, directions))


def test_nan_is_not_on_the_front_nor_in_the_way():
    cloud = torch.tensor([[1.0, NAN], [NAN, 0.0], [0.5, 3.0]])
    assert pareto_front(cloud, ["max", "min"]).tolist() == [False, False, True]
    assert non_dominated_ranks(cloud, ["max", "min"]).tolist() == [0, 0, 0]


def test_wrong_directions_and_objectives_are_refused():
    with pytest.raises(ValueError, match=r"directions is \['max', 'least'\]"):
        pareto_front(points(3, seed=0), ["max", "least"])
    with pytest.raises(ValueError, match="for each of 2 objectives"):
        hypervolume(points(3, seed=0), torch.zeros(2), ["max"])


def test_a_latency_rewards_objectives_are_its_metrics(tmp_path):
    path, _ = write_latency(tmp_path)
    table, _ = write_quality(tmp_path)
    task = LatencyRewardTask(NASBench201(), column(table), path, "chip", -0.3)
    everything = task.all_objectives()
    assert everything.shape == (SIZE, 2) and list(task.objectives) == ["quality", "latency_ms"]
    for place, architecture in enumerate(itertools.islice(task.space.enumerate(), 0, SIZE, 997)):
        metrics = evaluate(task, architecture, 0).metrics
        assert everything[997 * place].tolist() == [metrics[name] for name in task.objectives]
    assert not Task.objectives
