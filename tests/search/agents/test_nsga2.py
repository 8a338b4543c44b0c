"""NSGA-II sees every objective; what it promises as an agent is in test_contract.py."""

import math

import pytest
import torch

from search.agents.nsga2 import NSGA2
from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation, Objective, Proposal
from search.statistics.pareto import hypervolume

from .toy_spaces import Grid, Staircase, integer_reward

OBJECTIVES = {"first": "max", "second": "min", "third": "max"}


def values_of(space, archs, count=3):
    """Another additive function each, with interactions: int64 ``[..., decisions]`` to float64 ``[..., count]``."""
    return torch.stack([integer_reward(space, archs, seed) for seed in range(count)], -1)


def evaluations_of(space, archs, objectives):
    values = values_of(space, archs, len(objectives)).tolist()
    return [[Evaluation(0.0, dict(zip(objectives, row, strict=True))) for row in trial] for trial in values]


def proposals_of(archs):
    return [[Proposal(tuple(arch)) for arch in row] for row in archs.tolist()]


def search(agent, evaluations, objectives, n=1):
    """Everything asked, int64 ``[trials, evaluations, decisions]``."""
    agent.begin_task(evaluations, adapting=True)
    asked = []
    for _ in range(evaluations // n):
        archs = agent.ask(n)
        asked.append(archs)
        rewards = torch.zeros(archs.shape[:2], dtype=torch.float64)
        agent.observe(proposals_of(archs), evaluations_of(agent.space, archs, objectives), rewards)
    return torch.cat(asked, dim=1)


@pytest.mark.parametrize("count", [2, 3])
def test_its_fronts_cover_more_than_those_of_random_search(count):
    space, trials = Grid(), 16
    objectives = dict(list(OBJECTIVES.items())[:count])
    directions = list(objectives.values())
    worst = torch.tensor([-700.0 if direction == "max" else 700.0 for direction in directions]).double()
    volumes = {}
    for kind, more in ((NSGA2, {"objectives": objectives}), (RandomSearch, {})):
        found = values_of(space, search(kind(space, trials, **more), 100, objectives, n=5), count)
        volumes[kind] = hypervolume(found, worst, directions)
    ours, random = volumes[NSGA2], volumes[RandomSearch]
    error = math.sqrt(float(ours.var() + random.var()) / trials)
    print(f"hypervolume {float(ours.mean()):.4g}, random search {float(random.mean()):.4g}, standard error {error:.2g}")
    assert ours.mean() > random.mean() + 3 * error


def test_a_hard_limit_comes_first():
    """Only a hundredth of the space keeps it; once some do, the members all do."""
    space = Grid()
    everything = integer_reward(space, torch.tensor(list(space.enumerate())), seed=1)
    limit = float(everything.quantile(0.01))
    agent = NSGA2(space, trials=4, objectives={"first": "max", "second": Objective("min", limit)})
    asked = search(agent, 200, {"first": "max", "second": "min"}, n=5)
    kept = integer_reward(space, asked, seed=1) <= limit
    assert kept[:, :20].sum() < kept[:, -20:].sum() and (kept.sum(1) > 20).all()
    members = agent._archs[:, : agent._members]
    assert (integer_reward(space, members, seed=1) <= limit).all()


def test_a_generation_by_hand():
    """Of four members and four children the fronts survive in order, the last one by its room."""
    space = Grid(decisions=2, choices=5)
    agent = NSGA2(space, population=4, objectives={"a": "max", "b": "max"})
    points = {(0, 0): (0, 8), (0, 1): (2, 6), (0, 2): (3, 5), (0, 3): (8, 0)}  # a front; (3, 5) has more room
    points |= {(1, 0): (1, 1), (1, 1): (7, 0), (1, 2): (0, 0)}  # behind it
    archs = torch.tensor([[*points, (2, 2)]])
    evaluations = [Evaluation(0.0, {"a": a, "b": b}) for a, b in points.values()] + [Evaluation.failed("broken")]
    agent.begin_task(8, True)
    agent.observe(proposals_of(archs), [evaluations], torch.zeros(1, 8))
    assert [tuple(arch) for arch in agent._archs[0].tolist()] == [(0, 0), (0, 3), (0, 2), (0, 1)]
    # Three more that dominate (3, 5) and (2, 6), and one that broke.
    better = torch.tensor([[(3, 0), (3, 1), (3, 2), (3, 3)]])
    values = [(4, 7), (5, 6), (6, 5)]
    evaluations = [Evaluation(0.0, {"a": a, "b": b}) for a, b in values] + [Evaluation(1.0, {"a": 9})]
    agent.observe(proposals_of(better), [evaluations], torch.zeros(1, 4))
    kept = [tuple(arch) for arch in agent._archs[0].tolist()]
    # Ends of the first front, then (4, 7) from (0, 8) to (5, 6) and (6, 5) from (5, 6) to (8, 0): 5/8 + 2/8, 3/8 + 6/8.
    assert kept == [(0, 0), (0, 3), (3, 2), (3, 0)]


def test_children_of_a_masked_space_are_valid_and_new():
    space = Staircase()
    agent = NSGA2(space, trials=3, population=6, objectives={"first": "max", "second": "min"}, tries=20)
    asked = search(agent, 60, {"first": "max", "second": "min"}, n=2)
    assert space.is_valid(asked).all()
    repeated = [60 - len({tuple(arch) for arch in row}) for row in asked.tolist()]
    assert max(repeated) <= 3  # of several hundred architectures; two of one batch may be the same


def test_what_it_can_not_do_is_refused():
    space = Grid()
    for arguments, words in (
        ({"population": 1}, "population is 1"),
        ({"crossover": 1.5}, "crossover is 1.5"),
        ({"tries": -1}, "tries is -1"),
        ({"objectives": {"a": "least"}}, "objectives.a: direction is 'least'"),
    ):
        with pytest.raises(ValueError, match=words):
            NSGA2(space, **arguments)
    agent = NSGA2(space, objectives={"a": "max", "b": "min"})
    with pytest.raises(ValueError, match="learns from evaluations"):
        agent.tell(agent.ask(1), torch.zeros(1, 1))


def test_the_score_is_an_objective_by_its_name_and_the_target_s_limits_count():
    agent = NSGA2(Grid(), population=2, objectives={"accuracy": "max", "size": "min"}, score_metric="accuracy")
    archs = torch.tensor([[[k] * 6 for k in range(3)]])
    over = Evaluation(9.0, {"size": 1.0}, violation=0.5)
    agent.observe(
        proposals_of(archs), [[over, Evaluation(2.0, {"size": 3.0}), Evaluation(1.0, {"size": 2.0})]], torch.zeros(1, 3)
    )
    assert sorted(agent._archs[0, :, 0].tolist()) == [1, 2] and sorted(agent._values[0].tolist()) == [[1, 2], [2, 3]]


def test_with_a_single_objective_it_climbs_the_score():
    space = Grid()
    asked = []
    for objectives in (None, {"size": Objective("min", 3.0)}):
        agent, found = NSGA2(space, objectives=objectives), []
        for _ in range(30):
            found.append(agent.ask(1))
            rewards = integer_reward(space, found[-1])
            evaluations = [[Evaluation(float(rewards), {"size": 1.0})]]
            agent.observe(proposals_of(found[-1]), evaluations, rewards)
        asked.append(torch.cat(found, dim=1))
    assert torch.equal(*asked)
