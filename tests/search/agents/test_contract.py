"""What every agent promises, on every space. An agent or a space is covered the moment its file exists."""

import functools
import itertools

import pytest
import torch

from search.agents.base import Agent
from search.agents.halving import Halving
from search.agents.predictor.agent import PredictorAgent
from search.agents.random_search import RandomSearch
from search.contracts import agent as contract
from search.contracts import space as space_contract
from search.contracts.agent import BUDGET, CONTRACT, PART, advance, nothing_works, with_failures
from search.contracts.contract import through_a_file
from search.contracts.toy_spaces import MaskedSpace
from search.recipes.catalogue import find_classes
from search.spaces.base import SearchSpace

from .fidelity_search import best_at_cost
from .toy_spaces import Grid, best_reward, integer_reward

__all__ = ["BUDGET", "nothing_works", "through_a_file", "with_failures"]

AGENTS = find_classes("search.agents", Agent)
SPACES = {**find_classes("search.spaces", SearchSpace), "MaskedSpace": MaskedSpace}


@functools.cache
def space_of(name):
    return Grid() if name == "Grid" else space_contract.subjects(SPACES[name])[0].space


@functools.cache
def factory_of(agent_name):
    """What makes it of its toy arguments; to read those takes longer than to make it."""
    return contract.subjects(AGENTS[agent_name], {"Grid": space_of("Grid")})[0].make


@functools.cache
def subject_of(agent_name, space_name):
    return contract.AgentSubject(AGENTS[agent_name], space_name, factory_of(agent_name), space_of(space_name))


def make(agent_name, space, trials=contract.TRIALS, seed=0):
    """An agent at the start of a task."""
    return contract.AgentSubject(AGENTS[agent_name], space.name, factory_of(agent_name), space).begin(trials, seed)


def test_there_are_agents_and_spaces():
    assert {"RandomSearch", "RegularizedEvolution", "Reinforce", "LocalSearch", "OptunaSampler"} <= set(AGENTS)


def triples():
    """Every check of every agent on a small space with rules; on each other one a single check, in turn.

    So every two of agent, space and check meet, and an agent's check is another on the next space. An agent knows of a
    space what `SearchSpace` tells it: how many choices there are, and which rule out which.
    """
    for c, check in enumerate(CONTRACT.checks):
        for a, agent_name in enumerate(AGENTS):
            for s, space_name in enumerate(SPACES):
                if space_name == "MaskedSpace" or (a + s + c) % len(CONTRACT.checks) == 0:
                    yield pytest.param(check, space_name, agent_name, id=f"{check.__name__}-{space_name}-{agent_name}")


@pytest.mark.parametrize(("check", "space_name", "agent_name"), list(triples()))
def test_promise(agent_name, space_name, check):
    check(subject_of(agent_name, space_name))


def test_every_two_of_agent_space_and_check_meet():
    met = [each.values for each in triples()]
    for (one, ones), (other, others) in itertools.combinations(enumerate((CONTRACT.checks, SPACES, AGENTS)), 2):
        assert {(each[one], each[other]) for each in met} == set(itertools.product(ones, others))


@pytest.mark.parametrize("agent_name", AGENTS)
@pytest.mark.parametrize("check", CONTRACT.once, ids=lambda check: check.__name__)
def test_promise_on_one_space(agent_name, check):
    check(subject_of(agent_name, "Grid"))


RESUME = """
import sys, torch
from tests.search.agents.test_contract import PART, BUDGET, advance, make, space_of
states = torch.load(sys.argv[1], weights_only=True)
after = {}
for name, state in states.items():
    agent = make(name, space_of("MaskedSpace"), seed=77)
    agent.load_state_dict(state)
    after[name] = advance(agent, BUDGET - PART[1])
torch.save(after, sys.argv[2])
"""


def test_resuming_in_another_process_changes_nothing(server, tmp_path):
    """Another process hashes strings differently, so an order that comes from a set of names would show."""
    states = {}
    for name in AGENTS:
        agent = make(name, space_of("MaskedSpace"))
        advance(agent, PART[1])
        states[name] = agent.state_dict()
    torch.save(states, tmp_path / "states.pt")
    done = server.run(RESUME, [tmp_path / "states.pt", tmp_path / "after.pt"])
    assert done.returncode == 0, done.stderr
    after = torch.load(tmp_path / "after.pt", weights_only=True)
    for name in AGENTS:
        assert torch.equal(after[name], subject_of(name, "MaskedSpace").reference()[:, PART[1] :]), name


# ---- learning ----------------------------------------------------------------------------------------------------


def regret(agent, evaluations=60):
    """How far the best of a search stays below the known optimum: float64 ``[trials]``."""
    if agent.demands - {"stop_below"}:  # of a fidelity
        best = best_at_cost(agent, evaluations)
    else:
        agent.begin_task(evaluations, adapting=True)
        best = integer_reward(agent.space, advance(agent, evaluations)).max(dim=1).values
    return best_reward(agent.space) - best


@functools.cache
def random_regret():
    return regret(RandomSearch(space_of("Grid"), trials=64, seed=0))


SLOW = {
    "AdaptiveLatencyTransfer": 4,
    "AdaptiveTransfer": 4,
    "CATCHer": 12,
    "OptunaSampler": 8,
    "SequentialModelBased": 8,
}
"""Trials of agents that take long for each, and leave so little regret that a few show it."""


@pytest.mark.parametrize("agent_name", [name for name, found in AGENTS.items() if found.learns])
def test_beats_random_search(agent_name):
    """15,625 architectures, 60 evaluations; an agent that takes long for many trials gets fewer, so a larger error."""
    found = AGENTS[agent_name]
    trials = SLOW.get(agent_name, 64 if found.batched else 16)
    if issubclass(found, Halving):
        trials = 32
    if issubclass(found, PredictorAgent):
        trials = 2  # it looks at the whole space, and leaves no regret
    ours, random = regret(found(space_of("Grid"), trials=trials, seed=0)), random_regret()
    error = (ours.var() / len(ours) + random.var() / len(random)).sqrt()
    assert ours.min() >= 0
    print(f"{agent_name}: regret {ours.mean():.1f}, random search {random.mean():.1f}, standard error {error:.1f}")
    assert ours.mean() < random.mean() - 3 * error
