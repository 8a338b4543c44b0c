import pytest
import torch
from scipy import stats

from search.agents.random_search import RandomSearch
from search.agents.regularized_evolution import RegularizedEvolution

from .toy_spaces import Grid

# Ten members that differ in every decision, so that a child shows its parent: nine of ten choices are the parent's.
SPACE = Grid(decisions=10, choices=10)
MEMBERS = torch.arange(10)[:, None].expand(10, 10)


def full_agent(trials, tournament, fitness, seed=0):
    """An agent whose queue holds MEMBERS, oldest first."""
    agent = RegularizedEvolution(SPACE, trials, seed, population=10, tournament=tournament)
    agent.ask(10)
    agent.tell(MEMBERS.expand(trials, 10, 10), fitness.double().expand(trials, 10))
    return agent


def parents(children):
    """Which member each child comes from, having checked that exactly one decision changed."""
    found = children.mode(dim=-1).values
    assert ((children != found[..., None]).sum(-1) == 1).all()
    return found


@pytest.mark.parametrize("n", [1, 4])
def test_the_first_population_is_random_search(n):
    space = Grid()
    evolution = RegularizedEvolution(space, trials=3, seed=5, population=8)
    random = RandomSearch(space, trials=3, seed=5)
    for _ in range(8 // n):
        archs = evolution.ask(n)
        assert torch.equal(archs, random.ask(n))
        evolution.tell(archs, torch.zeros(3, n))


def test_a_batch_across_the_end_of_the_random_phase():
    """Nine are told; of the next three, one is still random and two are children of the best of the nine."""
    agent = RegularizedEvolution(SPACE, trials=50, population=10, tournament=500)
    for first in (0, 3, 6):
        assert agent.ask(3).shape == (50, 3, 10)
        agent.tell(MEMBERS[first : first + 3].expand(50, 3, 10), torch.arange(first, first + 3).expand(50, 3))
    last = agent.ask(3)
    assert (parents(last[:, 1:]) == 8).all()
    assert (SPACE.distance(last[:, :1, None], MEMBERS) > 1).all()


def test_the_parent_is_the_best_of_its_tournament():
    """With replacement, the best of 3 out of 10 has rank r with probability ((11-r)^3 - (10-r)^3) / 10^3."""
    fitness = torch.tensor([3, 1, 4, 15, 9, 2, 6, 5, 35, 8])
    agent = full_agent(trials=2000, tournament=3, fitness=fitness)
    found = parents(agent.ask(5)).flatten()
    rank = fitness.argsort(descending=True).argsort() + 1
    counts = torch.bincount(rank[found], minlength=11)[1:]
    expected = torch.tensor([((11 - r) ** 3 - (10 - r) ** 3) / 1000 for r in range(1, 11)]) * len(found)
    assert expected.min() >= 10 - 1e-3
    assert (
        stats.chisquare(counts.numpy(), expected.double().numpy() * (counts.sum() / expected.sum()).item()).pvalue
        > 1e-3
    )


def test_the_oldest_dies_even_if_it_is_the_best():
    fitness = torch.tensor([100, 90, 1, 2, 3, 4, 5, 6, 7, 8])
    agent = full_agent(trials=20, tournament=500, fitness=fitness)  # such a tournament holds every member
    assert (parents(agent.ask(2)) == 0).all()
    newcomer = MEMBERS[5].expand(20, 1, 10)
    agent.tell(newcomer, torch.full((20, 1), -1.0))
    assert (parents(agent.ask(2)) == 1).all()
    agent.tell(newcomer, torch.full((20, 1), -1.0))
    assert (parents(agent.ask(2)) == 9).all()
    assert agent.state_dict()["members"].shape == (20, 10, 10)


def test_a_new_task_starts_at_random():
    agent = full_agent(trials=4, tournament=3, fitness=torch.arange(10))
    agent.begin_task(budget=20, adapting=True)
    assert (agent.ask(10).mode(-1).values[..., None] != agent.ask(10)).sum(-1).max() > 1
    assert agent.state_dict()["members"].shape[1] == 0


def test_refuses_an_empty_population():
    with pytest.raises(ValueError, match="population is 0, it must be at least 1"):
        RegularizedEvolution(SPACE, population=0)
    with pytest.raises(ValueError, match="tournament is 0"):
        RegularizedEvolution(SPACE, tournament=0)
