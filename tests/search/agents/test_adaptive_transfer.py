"""Adaptive transfer: its prior is the sources' ranking, and the target corrects it."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from search.agents.adaptive_transfer import AdaptiveTransfer
from search.agents.naive_transfer import NaiveTransfer

from .toy_spaces import Grid, best_reward, integer_reward
from .walking import walk

SPACE = Grid(4, 4)


def meta_trained(reward, kind=AdaptiveTransfer, trials=4, **arguments):
    agent = kind(SPACE, trials=trials, seed=0, trees=10, **arguments)
    walk(agent, 60, n=60, adapting=False, reward=reward)
    return agent


def test_prior_is_the_normal_quantile_of_the_naive_ranking():
    ours, naive = meta_trained(integer_reward), meta_trained(integer_reward, NaiveTransfer)
    ours.begin_task(10, True)
    order = SPACE.code(walk(naive, 256, n=256))
    prior, everything = ours.prior(), torch.arange(256)
    for trial in range(4):
        place = np.empty(256)
        place[order[trial].numpy()] = np.arange(256)
        assert np.allclose(prior[trial], norm.ppf((256 - place[everything] - 0.5) / 256))


@pytest.mark.parametrize("adapts_on", ["ranks", "rewards"])
def test_begins_where_the_sources_point_and_leaves_where_they_mislead(adapts_on):
    """Sources whose best is the target's worst: the naive transfer stays, this one turns round."""
    sources = [
        meta_trained(lambda space, archs: -integer_reward(space, archs), kind, **arguments)
        for kind, arguments in ((AdaptiveTransfer, {"adapts_on": adapts_on}), (NaiveTransfer, {}))
    ]
    ours, naive = (walk(agent, 40) for agent in sources)
    assert torch.equal(ours[:, 0], naive[:, 0])
    reached, stayed = (integer_reward(SPACE, asked).amax(1) for asked in (ours, naive))
    spread = integer_reward(SPACE, torch.tensor(list(SPACE.enumerate()))).std()
    print(f"best reached {reached.tolist()} against {stayed.tolist()}; there is {best_reward(SPACE)}")
    assert (reached > stayed + 2 * spread).all()


def test_sources_that_agree_save_evaluations():
    start, scratch = meta_trained(integer_reward), AdaptiveTransfer(SPACE, trials=4, seed=0)
    found = [integer_reward(SPACE, walk(agent, 10)).amax(1).mean() for agent in (start, scratch)]
    assert found[0] > found[1]


def test_the_first_of_a_search_from_scratch_is_random():
    asked = walk(AdaptiveTransfer(SPACE, trials=40, seed=0), 1)
    assert len(SPACE.code(asked).unique()) > 30


def test_asks_nothing_twice_and_goes_on_where_all_is_known():
    space = Grid(2, 3)
    asked = walk(AdaptiveTransfer(space, trials=3, refit=3, steps=2), 15, n=3)
    assert all(len(space.code(row[:9]).unique()) == 9 for row in asked)


def test_looks_at_a_share_of_a_larger_space():
    agent = AdaptiveTransfer(SPACE, trials=2, seed=0, steps=2, candidates=20)
    asked = walk(agent, 20)
    assert all(len(SPACE.code(row).unique()) == 20 for row in asked)


def test_weights_carry_over():
    trained = meta_trained(integer_reward)
    fresh = AdaptiveTransfer(SPACE, trials=2, seed=5)
    fresh.load_weights(trained.weights(), first=1)
    fresh.begin_task(5, True)
    assert torch.equal(fresh.prior(), trained.prior()[1:3])


@pytest.mark.parametrize("wrong", [{"refit": 0}, {"steps": -1}, {"candidates": 0}], ids=lambda wrong: next(iter(wrong)))
def test_refuses_what_could_only_fail_later(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdaptiveTransfer(SPACE, **wrong)
