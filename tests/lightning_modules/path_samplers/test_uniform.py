"""Uniform paths, and the two ways to choose at the end."""

import math
from collections import Counter

import pytest
import torch
from scipy import stats

from lightning_modules.path_samplers.uniform import RandomNASSampler, UniformSampler
from search.spaces.listed import ListedNetworks
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201
from tests.search.spaces.masked_space import MaskedSpace

SPACE = NASBench201()
SECRET = (3, 1, 4, 0, 2, 3)


def agreement(archs):
    """How many decisions are the secret's: a worth that a search can climb."""
    return [float(sum(a == b for a, b in zip(arch, SECRET, strict=True))) for arch in archs]


class Asked:
    """Remembers what was evaluated, a list a call."""

    def __init__(self, worth):
        self.worth, self.calls = worth, []

    def __call__(self, archs):
        self.calls.append(list(archs))
        return self.worth(archs)

    @property
    def flat(self):
        return [arch for call in self.calls for arch in call]


def test_every_choice_of_every_decision_is_equally_often():
    sampler = UniformSampler(SPACE)
    paths = [sampler.path(0, step).choices for step in range(3000)]
    for t in range(6):
        counts = Counter(choices[t] for choices in paths)
        assert stats.chisquare([counts[k] for k in range(5)]).pvalue > 1e-3
    joint = Counter((choices[0], choices[5]) for choices in paths)  # and decisions do not depend on each other
    assert stats.chisquare([joint[a, b] for a in range(5) for b in range(5)]).pvalue > 1e-3


def test_seeds_steps_and_indices_are_streams_of_their_own():
    sampler = UniformSampler(SPACE)
    keys = [(seed, step, index) for seed in range(6) for step in range(6) for index in range(6)]
    different = {sampler.path(*key).choices for key in keys}
    expected = 15625 * (1 - (1 - 1 / 15625) ** len(keys))
    assert len(different) > expected - 6


def test_where_few_are_listed_evolution_goes_on_to_the_nearest():
    listed = ListedNetworks(NASBench101(), "nasbench101.npz")

    secret = listed.draw("secret")

    def alike(archs):
        return [float(sum(a == b for a, b in zip(arch, secret, strict=True))) for arch in archs]

    asked = Asked(alike)
    chosen = UniformSampler(listed, population=10, tournament=4, budget=40).choose(asked, 1, 0)
    assert len(asked.flat) == len(set(asked.flat)) == 40
    assert bool(listed.is_valid(torch.tensor(asked.flat)).all())
    assert alike(chosen)[0] > max(alike(asked.flat[:10])), "better than the opening"


def test_evolution_finds_the_best_within_its_budget():
    asked = Asked(agreement)
    chosen = UniformSampler(SPACE, population=30, tournament=8, budget=500).choose(asked, 4, 1)
    assert chosen[0] == SECRET and agreement(chosen) == [6, 5, 5, 5]
    assert len(asked.flat) == len(set(asked.flat)) == 500
    assert len(asked.calls[0]) == 30 and all(len(call) == 1 for call in asked.calls[1:])


def test_children_differ_in_one_decision_from_one_of_the_youngest():
    asked = Asked(agreement)
    UniformSampler(SPACE, population=5, tournament=2, budget=60).choose(asked, 1, 2)
    flat = asked.flat
    for place, child in enumerate(flat[5:], start=5):
        alive = flat[place - 5 : place]  # the oldest died
        assert min(sum(a != b for a, b in zip(child, each, strict=True)) for each in alive) == 1


def test_a_full_tournament_always_takes_the_best_alive():
    asked = Asked(agreement)
    UniformSampler(SPACE, population=4, tournament=4, budget=40).choose(asked, 1, 0)
    # A tournament draws with replacement, so the best is in it with 1 - (3/4)^4 = 68%.
    flat, near_best = asked.flat, 0
    for place, child in enumerate(flat[4:], start=4):
        best = max(flat[place - 4 : place], key=lambda arch: agreement([arch])[0])
        near_best += sum(a != b for a, b in zip(child, best, strict=True)) == 1
    assert near_best >= 0.5 * 36


def test_evolution_ends_when_a_small_space_is_used_up():
    space = MaskedSpace()
    everything = list(space.enumerate())
    asked = Asked(lambda archs: [float(space.code(torch.tensor(arch))) for arch in archs])
    chosen = UniformSampler(space, population=10, tournament=2, budget=5000).choose(asked, 3, 0)
    assert len(asked.flat) == len(set(asked.flat)) <= len(everything)
    assert set(asked.flat) <= set(everything) and len(chosen) == 3


def test_random_nas_returns_the_best_of_its_candidates():
    asked = Asked(agreement)
    chosen = RandomNASSampler(SPACE, candidates=150).choose(asked, 10, 3)
    assert len(asked.calls) == 1 and len(set(asked.flat)) == 150
    assert agreement(chosen) == sorted(agreement(asked.flat), reverse=True)[:10]
    assert RandomNASSampler(SPACE, candidates=150).choose(asked, 10, 4) != chosen


@pytest.mark.parametrize("sampler", [UniformSampler(SPACE, 20, 5, 80), RandomNASSampler(SPACE, 60)])
def test_architectures_without_a_worth_come_last(sampler):
    def worth(archs):
        return [math.nan if arch[0] else value for arch, value in zip(archs, agreement(archs), strict=True)]

    chosen = sampler.choose(worth, 1000, 0)
    known = [arch[0] == 0 for arch in chosen]
    assert known == sorted(known, reverse=True) and any(known) and not all(known)


def test_an_architecture_without_a_worth_is_no_parent():
    def worth(archs):
        return [math.nan if arch[0] else value for arch, value in zip(archs, agreement(archs), strict=True)]

    asked = Asked(worth)
    UniformSampler(SPACE, population=20, tournament=20, budget=200).choose(asked, 1, 0)
    flat = asked.flat
    for place, child in enumerate(flat[20:], start=20):
        parents = [
            each for each in flat[place - 20 : place] if sum(a != b for a, b in zip(child, each, strict=True)) == 1
        ]
        assert any(parent[0] == 0 for parent in parents)


@pytest.mark.parametrize("settings", [{"tournament": 60}, {"population": 2000}, {"tournament": 0}, {"budget": 10}])
def test_refuses_an_evolution_that_cannot_be(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} {value}"):
        UniformSampler(SPACE, **settings)


def test_random_nas_refuses_no_candidates():
    with pytest.raises(ValueError, match="candidates is 0"):
        RandomNASSampler(SPACE, candidates=0)
