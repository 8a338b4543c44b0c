"""What every search space promises. A new space is covered the moment its file exists."""

import functools
import itertools
import math

import pytest

from search.contracts.space import CONTRACT, subjects
from search.recipes.catalogue import find_classes
from search.spaces.base import SearchSpace

from .masked_space import LENGTHS, LIMITS, MaskedSpace

SPACES = {**find_classes("search.spaces", SearchSpace), "MaskedSpace": MaskedSpace}


@functools.cache
def subject_of(name):
    return subjects(SPACES[name])[0]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("check", CONTRACT.checks, ids=lambda check: check.__name__)
def test_promise(name, check):
    check(subject_of(name))


def test_there_are_spaces_and_they_have_different_names():
    assert {"NASBench201", "TransNASBench101Micro", "MaskedSpace"} <= set(SPACES)
    assert len({subject_of(name).space.name for name in SPACES}) == len(SPACES)


def test_the_masked_space_is_what_a_triple_loop_gives():
    valid = [
        (width, *(length - 1 for length in lengths), activation)
        for width in range(3)
        for lengths in itertools.product(*(range(1, most + 1) for most in LENGTHS))
        for activation in range(2)
        if sum(lengths) <= LIMITS[width]
    ]
    assert subject_of("MaskedSpace").everything == valid
    assert 100 <= len(valid) < math.prod(subject_of("MaskedSpace").space.sizes)


def test_check_refuses_what_the_mask_rules_out():
    space = MaskedSpace()
    with pytest.raises(ValueError, match=r"'length 2' of \(2, 1, 3, 0, 0\) is 3, allowed: \[0, 1\]"):
        space.check((2, 1, 3, 0, 0))  # 2 + 4 blocks, and another to come, where 5 are allowed
