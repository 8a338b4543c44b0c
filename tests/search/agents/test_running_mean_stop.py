"""FastDenseNAS' rule of stopping, beside the published code's steps written out."""

import random

import pytest
import torch

from search.agents.random_search import RandomSearch
from search.agents.running_mean_stop import RunningMeanStop
from search.contracts.toy_spaces import Grid
from search.evaluation import Evaluation, Proposal


def make(trials=1, **arguments):
    agent = RunningMeanStop(Grid(), trials, 0, RandomSearch, **arguments)
    agent.begin_task(1000, adapting=True)
    return agent


def told(agent, proposals, firsts):
    evaluations = [[Evaluation(each, {"first_stage": each}) for each in row] for row in firsts]
    agent.observe(proposals, evaluations, torch.tensor(firsts, dtype=torch.float64))


def test_mean_and_tolerance_follow_the_published_code():
    agent, draw = make(), random.Random(4)
    mean, tolerance, steps = 1.0, 0.9, 0
    for _ in range(450):
        (proposals,) = agent.propose(1)
        bound = proposals[0].stop_below
        assert mean * (1 - tolerance) < bound < mean
        score = draw.uniform(5, 60)
        told(agent, [proposals], [[score]])
        tolerance *= {100: 0.9, 200: 0.8, 300: 0.7, 400: 0.6}.get(steps, 1.0)
        steps += 1
        mean = 0.99 * mean + 0.01 * score
        steps += score > mean
    assert steps > 450 and tolerance < 0.9
    assert float(agent._mean) == pytest.approx(mean, 1e-12)
    assert float(agent._tolerance) == pytest.approx(tolerance, 1e-12)


def test_bounds_are_uniform_below_the_mean():
    (proposals,) = make(start=10.0).propose(2000)
    shares = torch.tensor([1 - each.stop_below / 10 for each in proposals])
    assert abs(shares.mean() - 0.45) < 0.02 and shares.min() >= 0 and shares.max() <= 0.9
    assert torch.histc(shares, 9, 0, 0.9).min() > 150


def test_failures_and_bounds_of_the_agent_inside_stay_as_they_are():
    class Bounded(RandomSearch):
        def propose(self, n=1):
            return [[Proposal(each.architecture, stop_below=7.0) for each in row] for row in super().propose(n)]

    agent = RunningMeanStop(Grid(), 1, 0, Bounded)
    (proposals,) = agent.propose(2)
    assert [each.stop_below for each in proposals] == [7.0, 7.0]
    failed = [[Evaluation.failed("no"), Evaluation(3.0)]]
    agent.observe([proposals], failed, torch.tensor([[torch.nan, 3.0]]))
    assert float(agent._mean) == 1.0 and int(agent._counted) == 0
