"""What every agent promises to a search whose workers do not wait for each other.

It is asked before it was told of what it asked earlier, and told in another order than it asked in.
"""

import functools
import random

import pytest
import torch

from search.agents.local_search import LocalSearch

from .test_contract import AGENTS, BUDGET, integer_reward, make, nothing_works, through_a_file, with_failures
from .toy_spaces import Grid, Staircase

SPACES = {"Grid": Grid, "Staircase": Staircase}

every_agent = pytest.mark.parametrize("agent_name", AGENTS)
every_space = pytest.mark.parametrize("space_name", SPACES)


def fly(agent, evaluations, most, order, reward=integer_reward, under_way=None):
    """Search on with at most ``most`` architectures under way; what was asked and what stays under way."""
    asked, under_way, told = [], under_way if under_way is not None else [], 0
    while told < evaluations:
        while len(under_way) < most and len(under_way) + told < evaluations:
            asked.append(agent.ask(1))
            under_way.append(asked[-1].clone())
        archs = under_way.pop(order.randrange(len(under_way)))
        agent.tell(archs, reward(agent.space, archs))
        told += 1
    return torch.cat(asked, dim=1)


def with_either_space(rewards):
    """Every agent with each of the rewards, the spaces in turn: every two of the three meet."""
    return pytest.mark.parametrize(
        ("agent_name", "reward", "space_name"),
        [
            (agent_name, reward, list(SPACES)[(a + r) % 2])
            for a, agent_name in enumerate(AGENTS)
            for r, reward in enumerate(rewards)
        ],
    )


@with_either_space([integer_reward, with_failures, nothing_works])
def test_asks_valid_architectures(agent_name, space_name, reward):
    agent = make(agent_name, SPACES[space_name](), trials=2)
    asked = fly(agent, BUDGET, 4, random.Random(1), reward)
    assert asked.shape[1] == BUDGET and agent.space.is_valid(asked).all()


@every_agent
def test_a_trial_is_the_run_of_its_own_seed(agent_name):
    runs = [
        fly(make(agent_name, Grid(), trials, seed), BUDGET, 4, random.Random(2)) for trials, seed in ((2, 0), (1, 1))
    ]
    assert torch.equal(runs[0][1], runs[1][0])


@every_agent
@every_space
def test_resuming_with_some_under_way_changes_nothing(agent_name, space_name):
    space = SPACES[space_name]()
    order, agent = random.Random(3), make(agent_name, space)
    fly(agent, 12, 4, order)
    under_way = [agent.ask(1) for _ in range(3)]
    resumed = make(agent_name, space, seed=77)
    resumed.load_state_dict(through_a_file(agent.state_dict()))
    again = [archs.clone() for archs in under_way]
    one = fly(agent, BUDGET - 12, 4, random.Random(4), under_way=under_way)
    other = fly(resumed, BUDGET - 12, 4, random.Random(4), under_way=again)
    assert torch.equal(one, other)


@every_agent
def test_order_of_telling_is_all_that_matters(agent_name):
    """Told in the order of asking, with nothing left under way between: the search in step."""
    one, other = make(agent_name, Grid()), make(agent_name, Grid())
    asked = fly(one, BUDGET, 1, random.Random(5))
    for k in range(BUDGET):
        archs = other.ask(1)
        assert torch.equal(archs[:, 0], asked[:, k])
        other.tell(archs, integer_reward(other.space, archs))


@pytest.mark.parametrize("agent_name", ["CATCHer", "BayesianCATCHer", "LocalSearch", "NaiveTransfer"])
def test_what_is_under_way_is_not_asked_again(agent_name):
    agent = make(agent_name, Grid())
    fly(agent, 12, 1, random.Random(6))
    codes = torch.stack([agent.space.code(agent.ask(1)[:, 0]) for _ in range(8)], dim=1)
    assert all(len(set(row.tolist())) == 8 for row in codes)


def test_catchers_remember_with_what_probability_they_asked():
    """Whatever is told in between: PPO weighs a network by how likely it was when it was asked."""
    agent = make("CATCHer", Grid())
    fly(agent, 12, 1, random.Random(7))
    asked, likely = [], []
    for _ in range(4):
        asked.append(agent.ask(1))
        likely.append(agent._pending_log_probs[:, -1:].clone())
    for k in (2, 0, 3, 1):
        agent.tell(asked[k], integer_reward(agent.space, asked[k]))
        assert torch.equal(agent.behaviour_log_probs[:, -1:], likely[k])
    assert agent._pending.shape[1] == agent._pending_log_probs.shape[1] == 0
    foreign = agent.space.sample(agent.rng, 1)
    agent.tell(foreign, integer_reward(agent.space, foreign))
    assert torch.allclose(agent.behaviour_log_probs[:, -1], -torch.tensor(5.0).double().log())


# ---- local search ------------------------------------------------------------------------------------------------


class Hill(Grid):
    """Two decisions: a neighbourhood of four."""

    def __init__(self):
        super().__init__(2, 3)


def told(agent, *rewards):
    for arch, reward in rewards:
        agent.tell(torch.tensor([[arch]]), torch.tensor([[reward]], dtype=torch.float64))


@pytest.fixture
def exhausted():
    """A climb whose four neighbours are all under way, and a start that was asked meanwhile."""
    agent = LocalSearch(Hill(), seed=1)
    top = tuple(agent.ask(1)[0, 0].tolist())
    told(agent, (top, 10.0))
    neighbours = [tuple(agent.ask(1)[0, 0].tolist()) for _ in range(4)]
    assert all(sum(a != b for a, b in zip(top, each, strict=True)) == 1 for each in neighbours)
    start = tuple(agent.ask(1)[0, 0].tolist())
    assert start not in (top, *neighbours)
    return agent, top, neighbours, start


def test_a_late_neighbour_that_is_worse_does_not_open_a_climb(exhausted):
    agent, top, neighbours, start = exhausted
    told(agent, (neighbours[0], 1.0), (neighbours[3], 2.0))
    assert tuple(agent._top[0].tolist()) == top and not agent._climbing
    told(agent, (start, 5.0))  # a start opens a climb, however low
    assert tuple(agent._top[0].tolist()) == start and agent._climbing
    told(agent, (neighbours[1], 6.0))  # better than that
    assert tuple(agent._top[0].tolist()) == neighbours[1]


def test_a_late_neighbour_that_is_better_goes_on_with_the_climb(exhausted):
    agent, _, neighbours, start = exhausted
    told(agent, (neighbours[2], 11.0))
    assert tuple(agent._top[0].tolist()) == neighbours[2] and agent._climbing
    told(agent, (start, 5.0))
    assert tuple(agent._top[0].tolist()) == neighbours[2]


def test_local_search_with_many_workers_still_climbs():
    """Sixteen under way in neighbourhoods of 24; it beats its own random starts by far."""
    from search.agents.random_search import RandomSearch

    best = functools.partial(torch.amax, dim=1)
    found = {}
    for kind in (LocalSearch, RandomSearch):
        agent = kind(Grid(), trials=32, seed=0)
        agent.begin_task(120, True)
        found[kind] = best(integer_reward(agent.space, fly(agent, 120, 16, random.Random(8)))).mean()
    print(f"best of 120: local search {found[LocalSearch]:.0f}, random search {found[RandomSearch]:.0f}")
    assert found[LocalSearch] > found[RandomSearch] + 40
