"""What every task and every pool of tasks promises. A new one is covered the moment its file exists."""

import functools

import pytest

from search.contracts.task import CONTRACT, POOL_CONTRACT
from search.recipes.catalogue import find_classes
from search.tasks.base import Task, TaskPool

MEASURES_TIME = "MeasuredLatencyTask"
"""Its score is no function of the seed."""
TASKS = {
    name: found
    for name, found in find_classes("search.tasks", Task).items()
    if found.toy() is not None and name != MEASURES_TIME
}
POOLS = {name: found for name, found in find_classes("search.tasks", TaskPool).items() if found.toy() is not None}


@functools.cache
def subject_of(name):
    return CONTRACT.subjects(TASKS[name])[0]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("check", CONTRACT.checks, ids=lambda check: check.__name__)
def test_promise(name, check):
    check(subject_of(name))


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("check", POOL_CONTRACT.checks, ids=lambda check: check.__name__)
def test_promise_of_a_pool(name, check):
    check(POOL_CONTRACT.subjects(POOLS[name])[0])


def test_there_are_tasks_and_pools():
    assert {"TableTask", "TrainedTask"} <= set(TASKS) and {"TablePool", "SubtaskPool"} <= set(POOLS)
