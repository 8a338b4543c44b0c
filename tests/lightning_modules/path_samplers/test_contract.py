"""What every path sampler promises. A new sampler is covered the moment its file exists."""

import functools
import math

import pytest

from lightning_modules.path_samplers.base import PathSampler, best_first, best_of, distinct
from search.contracts.path_sampler import CONTRACT, made_up_scores, subjects
from search.recipes.catalogue import find_classes
from search.spaces.nasbench101 import NASBench101
from tests.search.spaces.masked_space import MaskedSpace

SAMPLERS = find_classes("lightning_modules.path_samplers", PathSampler)
SPACES = ("nasbench201", "masked")


@functools.cache
def subjects_of(name):
    return dict(zip(SPACES, subjects(SAMPLERS[name]), strict=True))


def test_there_are_samplers():
    assert {"UniformSampler", "GumbelSampler", "NAOSampler", "DARTSSampler"} <= set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("check", CONTRACT.checks, ids=lambda check: check.__name__)
def test_promise(name, space, check):
    check(subjects_of(name)[space])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("check", CONTRACT.once, ids=lambda check: check.__name__)
def test_promise_on_one_space(name, check):
    check(subjects_of(name)["nasbench201"])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("space", SPACES)
def test_ours_have_as_many_to_offer_as_are_wanted(name, space):
    sampler = subjects_of(name)[space].sampler()
    assert [len(sampler.choose(made_up_scores, count, 3)) for count in (1, 4, 9)] == [1, 4, 9]


# ---- what samplers share ---------------------------------------------------------------------------------------------


def test_distinct_draws_are_different_and_bounded():
    space = MaskedSpace()
    everything = set(space.enumerate())
    found = distinct(space, 40, "some", 3)
    assert len(set(found)) == len(found) == 40 and set(found) <= everything
    assert distinct(space, 60, "some", 3)[:40] == found != distinct(space, 40, "some", 4)
    assert set(distinct(space, len(everything) + 20, 0)) <= everything


def test_different_architectures_are_of_different_networks():
    space = NASBench101()
    found = distinct(space, 25, "cells")
    networks = {space.canonical_of(each) for each in found}
    assert len(networks) == len(found) == 25
    rest = distinct(space, 5, "cells", besides=found)
    assert len(rest) == 5 and not networks & {space.canonical_of(each) for each in rest}


def test_best_first_puts_what_has_no_score_last():
    known = {(0,): 1.0, (1,): math.nan, (2,): 3.0, (3,): -math.inf, (4,): 3.0}
    assert best_first(known) == [(2,), (4,), (0,), (3,), (1,)]
    assert best_of(list(known), lambda archs: [known[arch] for arch in archs]) == best_first(known)
