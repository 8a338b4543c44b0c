"""What every term of a reward promises. A new one is covered the moment its file exists."""

import functools

import pytest

from search.contracts.reward import CONTRACT
from search.recipes.catalogue import find_classes
from search.rewards.base import RewardTerm

MEASURES_TIME = "MeasuredLatency"
"""Its values are those of a clock."""
TERMS = {
    name: found
    for name, found in find_classes("search.rewards", RewardTerm).items()
    if found.toy() is not None and name != MEASURES_TIME
}
"""What needs a user's file has tests of its own, for whoever has that."""


@functools.cache
def subject_of(name):
    return CONTRACT.subjects(TERMS[name])[0]


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("check", CONTRACT.checks, ids=lambda check: check.__name__)
def test_promise(name, check):
    check(subject_of(name))


def test_there_are_terms():
    assert "TableLatency" in TERMS
