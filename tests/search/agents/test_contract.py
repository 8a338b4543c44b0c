"""What every agent promises, on every space. An agent or a space is covered the moment its file exists."""

import functools
import io
import os
import subprocess
import sys

import pytest
import torch

from search.agents.base import Agent
from search.agents.random_search import RandomSearch
from search.recipes.catalogue import find_classes
from search.spaces.base import SearchSpace
from tests.search.spaces.masked_space import MaskedSpace

from .toy_spaces import Grid, best_reward, integer_reward

AGENTS = find_classes("search.agents", Agent)
SPACES = {**find_classes("search.spaces", SearchSpace), "MaskedSpace": MaskedSpace}
BUDGET, TRIALS = 24, 3
# Resuming past half-way, at a whole number of batches: 24 = 17 + 7 one by one, 24 = 18 + 6 in threes.
PART = {1: 17, 3: 18}

every_agent = pytest.mark.parametrize("agent_name", AGENTS)
every_space = pytest.mark.parametrize("space_name", SPACES)
every_batch = pytest.mark.parametrize("n", [1, 3])


@functools.cache
def space_of(name):
    return Grid() if name == "Grid" else SPACES[name]()


def toy_options(agent_name):
    """Smaller networks where an agent has any: the contract holds at every size."""
    if agent_name == "CATCHer":
        from search.agents.catcher.settings import CatcherSettings

        settings = CatcherSettings(hidden=16, candidates=8, policy_updates=2, evaluator_updates=3, double=True)
        return {"settings": settings}
    return {}


def make(agent_name, space, trials=TRIALS, seed=0):
    agent = AGENTS[agent_name](space, trials=trials, seed=seed, **toy_options(agent_name))
    agent.begin_task(BUDGET, adapting=True)
    return agent


def advance(agent, evaluations, n=1, reward=integer_reward):
    """Search on; the architectures asked, int64 ``[trials, evaluations, decisions]``."""
    asked = []
    for _ in range(evaluations // n):
        archs = agent.ask(n)
        asked.append(archs)
        agent.tell(archs, reward(agent.space, archs))
    return torch.cat(asked, dim=1)


@functools.cache
def reference(agent_name, space_name, n=1, seed=0, trials=TRIALS):
    """A search that nothing interrupts."""
    return advance(make(agent_name, space_of(space_name), trials, seed), BUDGET, n)


def through_a_file(state):
    """The state as another process reads it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def with_failures(space, archs):
    """About a third of the architectures fail, some of them first."""
    rewards = integer_reward(space, archs)
    return torch.where(rewards % 3 == 0, torch.nan, rewards)


def nothing_works(space, archs):
    return torch.full(archs.shape[:-1], torch.nan, dtype=torch.float64)


def test_there_are_agents_and_spaces():
    assert {"RandomSearch", "RegularizedEvolution", "Reinforce", "LocalSearch", "OptunaSampler"} <= set(AGENTS)


@every_agent
@every_space
@every_batch
def test_asks_valid_architectures(agent_name, space_name, n):
    asked = reference(agent_name, space_name, n)
    assert asked.dtype == torch.int64
    assert asked.shape == (TRIALS, BUDGET, len(space_of(space_name).decisions))
    assert space_of(space_name).is_valid(asked).all()


@every_agent
@every_space
def test_a_seed_decides_everything(agent_name, space_name):
    again = advance(make(agent_name, space_of(space_name)), BUDGET)
    assert torch.equal(again, reference(agent_name, space_name))
    other = reference(agent_name, space_name, seed=1000, trials=1)
    assert not any(torch.equal(other[0], trial) for trial in again)


@every_agent
@every_space
@every_batch
def test_a_trial_is_the_run_of_its_own_seed(agent_name, space_name, n):
    together = reference(agent_name, space_name, n)
    for trial in range(TRIALS):
        alone = reference(agent_name, space_name, n, seed=trial, trials=1)
        assert torch.equal(together[trial], alone[0])


@every_agent
@every_space
@every_batch
def test_resuming_past_half_way_changes_nothing(agent_name, space_name, n):
    space, part = space_of(space_name), PART[n]
    interrupted = make(agent_name, space)
    before = advance(interrupted, part, n)
    state = through_a_file(interrupted.state_dict())
    del interrupted
    resumed = make(agent_name, space, seed=77)  # whatever the fresh agent drew must not matter
    resumed.load_state_dict(state)
    after = advance(resumed, BUDGET - part, n)
    assert torch.equal(torch.cat([before, after], dim=1), reference(agent_name, space_name, n))


@every_agent
@every_space
def test_resuming_between_ask_and_tell(agent_name, space_name):
    space = space_of(space_name)
    interrupted = make(agent_name, space)
    advance(interrupted, 12)
    asked = interrupted.ask(3)
    resumed = make(agent_name, space, seed=77)
    resumed.load_state_dict(through_a_file(interrupted.state_dict()))
    for agent in (interrupted, resumed):
        agent.tell(asked, integer_reward(space, asked))
    assert torch.equal(advance(interrupted, 9, n=3), advance(resumed, 9, n=3))


@every_agent
def test_a_state_does_not_change_as_the_search_goes_on(agent_name):
    space = space_of("Grid")
    agent = make(agent_name, space)
    advance(agent, 17)
    state = agent.state_dict()
    first = advance(agent, 7)
    for _ in range(2):  # loading must not hand the state over to the agent either
        resumed = make(agent_name, space, seed=77)
        resumed.load_state_dict(state)
        assert torch.equal(advance(resumed, 7), first)


@every_agent
@every_space
@every_batch
def test_failed_evaluations_count_as_the_worst_so_far(agent_name, space_name, n):
    space = space_of(space_name)
    asked = advance(make(agent_name, space), BUDGET, n, with_failures)
    assert space.is_valid(asked).all()
    worst = [float("inf")] * TRIALS
    failures = 0

    def spelled_out(space, archs):
        nonlocal failures
        rewards = with_failures(space, archs)
        for trial, row in enumerate(rewards):
            worst[trial] = min([worst[trial], *(value for value in row.tolist() if value == value)])
            for k, value in enumerate(row.tolist()):
                if value != value:
                    row[k] = 0.0 if worst[trial] == float("inf") else worst[trial]
                    failures += 1
        return rewards

    assert torch.equal(advance(make(agent_name, space), BUDGET, n, spelled_out), asked)
    assert failures > 0


@every_agent
@every_space
@every_batch
def test_a_search_in_which_everything_fails_goes_on(agent_name, space_name, n):
    space = space_of(space_name)
    asked = advance(make(agent_name, space), BUDGET, n, nothing_works)
    assert space.is_valid(asked).all()


@every_agent
@every_space
def test_learns_from_architectures_it_did_not_ask(agent_name, space_name):
    space = space_of(space_name)
    agent = make(agent_name, space)
    foreign = space.sample(agent.rng, 4)
    agent.tell(foreign, integer_reward(space, foreign))
    asked = agent.ask(2)
    foreign = torch.cat([asked[:, 1:], space.sample(agent.rng, 4)], dim=1)  # one of the asked never comes back
    agent.tell(foreign, integer_reward(space, foreign))
    assert space.is_valid(advance(agent, 12, n=2)).all()


@every_agent
def test_a_new_task_forgets_how_bad_the_last_one_was(agent_name):
    """A failure on the new task must not count as the worst reward of the old one."""
    space = space_of("Grid")
    told = []
    for failure in (torch.nan, 0.0):
        agent = make(agent_name, space)
        advance(agent, 12, reward=lambda space, archs: integer_reward(space, archs) - 1e4)
        agent.begin_task(BUDGET, adapting=True)
        first = agent.ask(1)
        agent.tell(first, torch.full((TRIALS, 1), failure, dtype=torch.float64))
        told.append(advance(agent, 20))
    assert torch.equal(*told)


@every_agent
def test_refuses_rewards_that_do_not_match(agent_name):
    agent = make(agent_name, space_of("Grid"))
    with pytest.raises(ValueError, match="do not match"):
        agent.tell(agent.ask(2), torch.zeros(TRIALS, 1, dtype=torch.float64))


RESUME = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from agents.test_contract import AGENTS, PART, BUDGET, advance, make, space_of
states = torch.load(sys.argv[2], weights_only=True)
after = {}
for name, state in states.items():
    agent = make(name, space_of("MaskedSpace"), seed=77)
    agent.load_state_dict(state)
    after[name] = advance(agent, BUDGET - PART[1])
torch.save(after, sys.argv[3])
"""


def test_resuming_in_another_process_changes_nothing(tmp_path):
    """Another process hashes strings differently, so an order that comes from a set of names would show."""
    states = {}
    for name in AGENTS:
        agent = make(name, space_of("MaskedSpace"))
        advance(agent, PART[1])
        states[name] = agent.state_dict()
    torch.save(states, tmp_path / "states.pt")
    tests = os.path.dirname(os.path.dirname(__file__))
    subprocess.run(
        [sys.executable, "-c", RESUME, tests, str(tmp_path / "states.pt"), str(tmp_path / "after.pt")],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
    )
    after = torch.load(tmp_path / "after.pt", weights_only=True)
    for name in AGENTS:
        assert torch.equal(after[name], reference(name, "MaskedSpace")[:, PART[1] :]), name


# ---- learning ----------------------------------------------------------------------------------------------------

NOT_LEARNING = {
    "RandomSearch": "what the others are compared with",
    "NaiveTransfer": "it ignores the target's rewards; test_naive_transfer.py has what it learns from sources",
}
LEARNERS = [name for name in AGENTS if name not in NOT_LEARNING]


def regret(agent, evaluations=60):
    """How far the best of a search stays below the known optimum: float64 ``[trials]``."""
    agent.begin_task(evaluations, adapting=True)
    asked = advance(agent, evaluations)
    return best_reward(agent.space) - integer_reward(agent.space, asked).max(dim=1).values


@functools.cache
def random_regret():
    return regret(RandomSearch(space_of("Grid"), trials=64, seed=0))


@pytest.mark.parametrize("agent_name", LEARNERS)
def test_beats_random_search(agent_name):
    """15,625 architectures, 60 evaluations; a one-by-one agent gets fewer trials and with them a larger error."""
    trials = 16 if agent_name == "OptunaSampler" else 64
    ours, random = regret(AGENTS[agent_name](space_of("Grid"), trials=trials, seed=0)), random_regret()
    error = (ours.var() / len(ours) + random.var() / len(random)).sqrt()
    assert ours.min() >= 0
    print(f"{agent_name}: regret {ours.mean():.1f}, random search {random.mean():.1f}, standard error {error:.1f}")
    assert ours.mean() < random.mean() - 3 * error
