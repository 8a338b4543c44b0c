"""Each check is seen failing on a plugin that breaks the promise, and passing on one that keeps it."""

import pytest

from search.contracts import agent, attribute, path_sampler, reward, space, task
from search.contracts.contract import Broken, attempt
from search.contracts.kinds import CONTRACTS

from . import broken_agents, broken_attributes, broken_rewards, broken_samplers, broken_spaces, broken_tasks

FAULTS = [
    (space.CONTRACT, broken_spaces.BROKEN, broken_spaces.GOOD),
    (agent.CONTRACT, broken_agents.BROKEN, broken_agents.GOOD),
    (attribute.CONTRACT, broken_attributes.BROKEN, broken_attributes.GOOD),
    (path_sampler.CONTRACT, broken_samplers.BROKEN, broken_samplers.GOOD),
    (task.CONTRACT, broken_tasks.BROKEN, broken_tasks.GOOD),
    (task.POOL_CONTRACT, broken_tasks.BROKEN_POOLS, broken_tasks.GOOD_POOLS),
    (reward.CONTRACT, broken_rewards.BROKEN, broken_rewards.GOOD),
]
PLANTED = [
    pytest.param(contract, name, found, id=f"{contract.kind}-{name}-{found.__name__}")
    for contract, broken, _ in FAULTS
    for name, classes in broken.items()
    for found in classes
]


def check_of(contract, name):
    (check,) = [each for each in (*contract.checks, *contract.once) if each.__name__ == name]
    return check


def test_every_check_has_a_fault_that_it_finds():
    assert [contract for contract, _, _ in FAULTS] == list(CONTRACTS)
    for contract, broken, _ in FAULTS:
        assert set(broken) == {check.__name__ for check in (*contract.checks, *contract.once)}


@pytest.mark.parametrize(("contract", "name", "found"), PLANTED)
def test_a_fault_is_found(contract, name, found):
    broken = [attempt(check_of(contract, name), subject) for subject in contract.subjects(found)]
    faults = [each for each in broken if each is not None]
    assert faults and all(isinstance(each, Broken) and each.what and each.cure for each in faults)


@pytest.mark.parametrize(("contract", "good"), [(contract, good) for contract, _, good in FAULTS])
def test_what_is_in_order_passes(contract, good):
    for found in good:
        assert [fault for _, _, fault in contract.examine(found) if fault is not None] == []
