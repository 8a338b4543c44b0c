"""Fronts and hypervolumes of two objectives."""

import itertools

import pytest
import torch

from search.spaces.nasbench201 import NASBench201
from search.statistics.pareto import hypervolume, oriented, pareto_front
from search.tasks.base import Task
from search.tasks.latency_reward import LatencyRewardTask
from tests.search.evaluating import evaluate
from tests.search.tables.latency_tables import SIZE, column, write_latency, write_quality

NAN = float("nan")
DIRECTIONS = list(itertools.product(("max", "min"), repeat=2))


def points(n, seed, steps=None):
    """``n`` points in the unit square; with ``steps`` on a grid, so that many values are equal."""
    values = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values if steps is None else (values * steps).floor() / steps


@pytest.mark.parametrize("directions", DIRECTIONS, ids="-".join)
@pytest.mark.parametrize("steps", [None, 4], ids=["continuous", "ties"])
def test_the_front_is_what_no_point_dominates(directions, steps):
    cloud = points(60, seed=1, steps=steps)

    def better_or_equal(a, b, k):
        return a[k] >= b[k] if directions[k] == "max" else a[k] <= b[k]

    def dominates(a, b):
        both = better_or_equal(a, b, 0) and better_or_equal(a, b, 1)
        return both and not (better_or_equal(b, a, 0) and better_or_equal(b, a, 1))

    rows = cloud.tolist()
    expected = [not any(dominates(other, row) for other in rows) for row in rows]
    assert pareto_front(cloud, directions).tolist() == expected
    assert 0 < sum(expected) < len(rows)


@pytest.mark.parametrize("directions", DIRECTIONS, ids="-".join)
@pytest.mark.parametrize("steps", [None, 5], ids=["continuous", "ties"])
def test_hypervolume_counts_the_cells_that_a_point_dominates(directions, steps):
    cloud, reference = points(25, seed=2, steps=steps), torch.tensor([0.3, 0.6], dtype=torch.float64)
    # Cut the plane at every coordinate: each rectangle between cuts is dominated whole, or not at all.
    up, foot = oriented(cloud, directions).tolist(), oriented(reference, directions).tolist()
    xs = sorted({foot[0], *(p[0] for p in up if p[0] > foot[0])})
    ys = sorted({foot[1], *(p[1] for p in up if p[1] > foot[1])})
    expected = 0.0
    for (x0, x1), (y0, y1) in itertools.product(itertools.pairwise(xs), itertools.pairwise(ys)):
        if any(p[0] >= x1 and p[1] >= y1 for p in up):
            expected += (x1 - x0) * (y1 - y0)
    assert float(hypervolume(cloud, reference, directions)) == pytest.approx(expected, rel=1e-12)
    assert expected > 0


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


def test_wrong_directions_and_objectives_are_refused():
    with pytest.raises(ValueError, match=r"directions is \['max', 'least'\]"):
        pareto_front(points(3, seed=0), ["max", "least"])
    with pytest.raises(ValueError, match="for each of 2 objectives"):
        hypervolume(points(3, seed=0), torch.zeros(2), ["max"])
    with pytest.raises(ValueError, match="there are 3 objectives, 2 are needed"):
        pareto_front(torch.zeros(4, 3), ["max"] * 3)


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
