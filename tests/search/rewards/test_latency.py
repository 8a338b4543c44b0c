"""Rewards of two objectives, and the Pareto front between quality and latency."""

import math

import pytest
import torch

from search.rewards.latency import latency_factor
from search.statistics.pareto import pareto_front


def quality_latency_front(quality, latency):
    return pareto_front(torch.stack([quality, latency], -1), ["max", "min"])


def test_the_factor_by_hand():
    latency = torch.tensor([5.0, 10.0, 20.0], dtype=torch.float64)
    assert latency_factor(latency, 10.0, -1.0, -1.0).tolist() == [2.0, 1.0, 0.5]
    assert latency_factor(latency, 10.0, 0.0, -1.0).tolist() == [1.0, 1.0, 0.5]  # MnasNet's hard constraint
    assert latency_factor(latency, 10.0, -2.0, -1.0).tolist() == [4.0, 1.0, 0.5]


def test_twice_the_latency_costs_five_percent_in_mnasnets_reward():
    """MnasNet, sec. 3: its w was chosen such that double latency balances 5% accuracy."""
    assert latency_factor(torch.tensor(2.0), 1.0, -0.07, -0.07).item() == pytest.approx(0.95, abs=0.003)


def test_an_unknown_latency_has_no_factor_unless_it_does_not_matter():
    unknown = torch.tensor([math.nan])
    assert latency_factor(unknown, 1.0, -1.0, -1.0).isnan() and latency_factor(unknown, 1.0, 0.0, 0.0).item() == 1.0


def dominated(quality, latency, k):
    """The definition, spelled out."""
    return any(
        q >= quality[k] and ms <= latency[k] and (q > quality[k] or ms < latency[k])
        for q, ms in zip(quality, latency, strict=True)
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_dominates(seed):
    generator = torch.Generator().manual_seed(seed)
    # Few different values: many equal qualities, equal latencies and equal points.
    quality, latency = torch.randint(0, 8, (2, 40), generator=generator).double()
    front = quality_latency_front(quality, latency)
    assert front.tolist() == [not dominated(quality.tolist(), latency.tolist(), k) for k in range(40)]


def test_equal_points_share_the_front():
    assert quality_latency_front(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([2.0, 2.0, 2.0])).tolist() == [
        True,
        True,
        False,
    ]


def test_missing_values_are_not_on_the_front_nor_in_the_way():
    quality = torch.tensor([math.nan, 5.0, 9.0, 4.0])
    latency = torch.tensor([1.0, 2.0, math.nan, 3.0])
    assert quality_latency_front(quality, latency).tolist() == [False, True, False, False]
    assert quality_latency_front(torch.tensor([math.nan]), torch.tensor([1.0])).tolist() == [False]
    assert quality_latency_front(torch.zeros(0), torch.zeros(0)).tolist() == []


def test_the_ends_of_the_front_are_the_best_and_the_fastest():
    generator = torch.Generator().manual_seed(0)
    quality, latency = torch.rand(2, 1000, generator=generator)
    front = quality_latency_front(quality, latency)
    assert front[quality.argmax()] and front[latency.argmin()]
    order = latency[front].argsort()
    assert (quality[front][order].diff() > 0).all()
