"""What every search space promises. A new space is covered the moment its file exists."""

import functools
import itertools
import math

import pytest
import torch

from search.contracts.space import CONTRACT, subjects
from search.randomness import TrialRandom
from search.recipes.catalogue import find_classes
from search.spaces.base import Decision, SearchSpace

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


class Free(SearchSpace):
    """Every choice may follow every other; one decision is none."""

    name = "free"
    decisions = tuple(Decision(f"decision {t}", tuple("abcde"[:size])) for t, size in enumerate((3, 1, 5, 2)))

    def build(self, architecture, head=None):
        raise NotImplementedError


class InTurn(Free):
    """The same, as far as anybody knows who does not ask decision by decision."""

    def valid_choices(self, prefix):
        return super().valid_choices(prefix)


def test_what_is_drawn_at_once_is_what_is_drawn_decision_by_decision():
    found = []
    for space in (Free(), InTurn()):
        rng = TrialRandom(7, trials=3)
        archs = space.sample(rng, 500)
        mutants = space.mutate(archs, rng)
        beyond = mutants + torch.tensor([-1, 0, 1]).repeat(500)[:500, None]
        found.append((archs, mutants, space.is_valid(beyond), rng.uniform(1)))
    for at_once, in_turn in zip(*found, strict=True):
        assert torch.equal(at_once, in_turn)
    assert (found[0][0] != found[0][1]).sum(-1).eq(1).all() and found[0][2].any() and not found[0][2].all()


def test_an_architecture_is_checked_once_and_a_wrong_one_every_time(monkeypatch):
    space, asked = MaskedSpace(), []
    valid_choices = space.valid_choices
    monkeypatch.setattr(space, "valid_choices", lambda prefix: asked.append(prefix) or valid_choices(prefix))
    assert space.check((0, 0, 0, 0, 0)) == space.check([0, 0, 0, 0, 0]) and len(asked) == len(space.decisions)
    for _ in range(2):
        with pytest.raises(ValueError, match="'length 2'"):
            space.check((2, 1, 3, 0, 0))
