"""Naive transfer: what it fits, what it asks, and that nothing changes its mind."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata, spearmanr
from sklearn.ensemble import RandomForestRegressor

from search.agents.catcher.agent import CATCHer, normalise
from search.agents.naive_transfer import NaiveTransfer
from search.agents.predictor.base import Examples
from search.agents.predictor.gaussian_process import GaussianProcess
from search.agents.random_search import RandomSearch
from search.randomness import derive_seed
from search.spaces.nasbench201 import NASBench201
from search.tasks.table import TableTask
from tests.search.spaces.masked_space import MaskedSpace

from .toy_spaces import Grid, best_reward, integer_reward
from .walking import other_reward, walk

SMALL = Grid(decisions=3, choices=4)


def meta_trained(trials=2, seed=0, space=SMALL, networks=24, trees=8):
    agent = NaiveTransfer(space, trials=trials, seed=seed, trees=trees)
    asked = [walk(agent, networks, adapting=False, reward=reward) for reward in (integer_reward, other_reward)]
    return agent, asked


def test_source_networks_are_random_and_different():
    _, (first, second) = meta_trained(trials=3)
    for asked in (first, second):
        codes = SMALL.code(asked)
        assert all(len(set(row.tolist())) == 24 for row in codes)
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    shares = [NaiveTransfer(SMALL, trials=4000).ask(1)[:, 0, t].bincount(minlength=4) / 4000 for t in range(3)]
    assert all((share - 0.25).abs().max() < 0.03 for share in shares)  # four standard errors


def test_walks_down_the_mean_ranking_of_a_forest_a_source():
    """Fitted again here, from rewards whose ranks within each task became normal quantiles."""
    agent, sources = meta_trained()
    asked = walk(agent, 64)
    for trial in range(2):
        features, predicted = SMALL.one_hot(asked[trial]).numpy(), np.zeros(64)
        for archs, reward in zip(sources, (integer_reward, other_reward), strict=True):
            rewards = reward(SMALL, archs)
            # A forest takes one of two equally good splits by the last bit: it is fitted to the very numbers.
            y = normalise(rewards, "rank")[trial].double().numpy()
            assert np.allclose(y, norm.ppf((rankdata(rewards[trial]) - 0.5) / 24), atol=1e-6)
            forest = RandomForestRegressor(8, random_state=derive_seed(trial, "naive transfer"))
            predicted += forest.fit(SMALL.one_hot(archs[trial]).numpy(), y).predict(features)
        assert (np.diff(predicted) <= 1e-12).all() and np.ptp(predicted) > 0.5
        assert len(set(SMALL.code(asked[trial]).tolist())) == 64  # the whole space, nothing twice


def test_processes_rank_by_the_posterior_mean():
    """Computed again from the fitted kernel's own numbers."""
    agent = NaiveTransfer(SMALL, trials=2, model="gp")
    sources = [walk(agent, 24, adapting=False, reward=reward) for reward in (integer_reward, other_reward)]
    asked = walk(agent, 64)
    for trial in range(2):
        predicted = np.zeros(64)
        for archs, reward in zip(sources, (integer_reward, other_reward), strict=True):
            y = norm.ppf((rankdata(reward(SMALL, archs)[trial]) - 0.5) / 24)
            codes, everything = archs[trial].numpy(), asked[trial].numpy()
            scale = 1 / np.sqrt(2 * 0.75 * 3)  # of each choice: four choices, three decisions
            features = torch.from_numpy(scale * np.eye(4)[codes].reshape(24, 12)).float()
            groups = torch.arange(3).repeat_interleave(4)
            model = GaussianProcess(steps=60).fit(
                Examples(features[None], torch.from_numpy(y)[None], 0 * groups, groups, (0,))
            )
            noise, constant, height, *weights = model.kernel.parameters[0].exp().tolist()
            # Two codes that differ in a decision are twice the scale squared apart in it.
            exponent = (2 * scale**2 * np.array(weights) * (everything[:, None] != codes)).sum(-1)
            own = (2 * scale**2 * np.array(weights) * (codes[:, None] != codes)).sum(-1)
            between = constant + height * np.exp(-own) + (noise + 1e-4) * np.eye(24)
            predicted += (constant + height * np.exp(-exponent)) @ np.linalg.solve(between, y)
        assert (np.diff(predicted) <= 1e-4).all() and np.ptp(predicted) > 0.5


def test_a_process_ranks_nasbench201_better_than_a_forest():
    """What 250 random networks say of all others of a source column."""
    space = NASBench201()
    task = TableTask(space, "nasbench201.npz", "cifar100", "val", "acc", 12)
    agreement = {}
    for model in ("forest", "gp"):
        agent = NaiveTransfer(space, model=model, trees=30)
        agent.begin_task(250, adapting=False)
        archs = agent.ask(250)
        agent.tell(archs, task.scores(archs))
        order = agent.weights()["ranking"][0].long()
        agreement[model] = -spearmanr(np.arange(len(order)), task.all_scores()[order]).statistic
    assert agreement["gp"] > agreement["forest"] + 0.05 and agreement["forest"] > 0.5


def test_the_active_part_goes_where_most_is_expected():
    """Half of each source at random, then down the ranking of what is known by then."""
    agent = NaiveTransfer(SMALL, trials=2, model="gp", active=0.5)
    plain = NaiveTransfer(SMALL, trials=2, model="gp")
    first, second = (walk(agent, 24, adapting=False, reward=reward) for reward in (integer_reward, other_reward))
    assert torch.equal(first[:, :12], walk(plain, 12, adapting=False, reward=integer_reward)), "as random as ever"
    for before, known in (([], first), ([(first, integer_reward)], second)):
        reward = other_reward if before else integer_reward
        expected = NaiveTransfer(SMALL, trials=2, model="gp")
        for archs, its in [*before, (known[:, :12], reward)]:
            expected.begin_task(24, adapting=False)
            expected.tell(archs, its(SMALL, archs))
        order = SMALL.code(walk(expected, 64))
        for trial in range(2):
            told = set(SMALL.code(known[trial, :12]).tolist())
            best = [code for code in order[trial].tolist() if code not in told][:12]
            assert SMALL.code(known[trial, 12:]).tolist() == best
    rewards = integer_reward(SMALL, first)
    assert rewards[:, 12:].mean() > rewards[:, :12].mean() + 10


def test_an_active_source_is_resumed_exactly():
    whole = NaiveTransfer(SMALL, trials=2, model="gp", active=0.5)
    archs = walk(whole, 24, adapting=False)
    for split in (5, 12, 13, 20):
        begun, goes_on = (NaiveTransfer(SMALL, trials=2, model="gp", active=0.5) for _ in range(2))
        begun.begin_task(24, adapting=False)
        for _ in range(split):
            asked = begun.ask()
            begun.tell(asked, integer_reward(SMALL, asked))
        goes_on.load_state_dict(begun.state_dict())
        for place in range(split, 24):
            asked = goes_on.ask()
            assert torch.equal(asked[:, 0], archs[:, place]), (split, place)
            goes_on.tell(asked, integer_reward(SMALL, asked))


def test_ignores_what_the_target_says():
    agent, _ = meta_trained()
    weights = agent.weights()
    asked = []
    for reward in (integer_reward, lambda space, archs: -integer_reward(space, archs)):
        fresh = NaiveTransfer(SMALL, trials=2)
        fresh.load_weights(weights)
        asked.append(walk(fresh, 20, reward=reward))
    assert torch.equal(*asked)


def test_helps_where_the_source_agrees_and_misleads_where_not():
    space, trials = Grid(), 8
    regrets = {}
    for name, sign in (("agrees", 1), ("misleads", -1)):
        agent = NaiveTransfer(space, trials=trials)
        walk(
            agent, 200, n=20, adapting=False, reward=lambda space, archs, sign=sign: sign * integer_reward(space, archs)
        )
        regrets[name] = best_reward(space) - integer_reward(space, walk(agent, 20)).max(1).values
    random = best_reward(space) - integer_reward(space, walk(RandomSearch(space, trials=64), 20)).max(1).values
    assert regrets["agrees"].max() < random.min() + 60 and regrets["agrees"].mean() < 0.5 * random.mean()
    assert regrets["misleads"].min() > random.max()


def test_asks_again_only_when_the_space_is_used_up():
    asked = walk(NaiveTransfer(SMALL, trials=2), 64, n=4)
    assert all(len(set(row.tolist())) == 64 for row in SMALL.code(asked))
    size = len(list(MaskedSpace().enumerate()))
    asked = walk(NaiveTransfer(MaskedSpace()), size + 30, n=5)
    assert len({tuple(arch) for arch in asked[0, :size].tolist()}) == size
    assert MaskedSpace().is_valid(asked).all()


def test_does_not_ask_what_it_was_told():
    agent, _ = meta_trained()
    undisturbed = walk(agent, 10)
    agent.begin_task(10, adapting=True)
    told = undisturbed[:, 1:4]
    agent.tell(told, integer_reward(SMALL, told))
    assert torch.equal(agent.ask(3), undisturbed[:, [0, 4, 5]])


def test_rankings_are_dealt_out_in_turn():
    agent, _ = meta_trained(trials=2)
    asked = walk(agent, 12)
    assert not torch.equal(asked[0], asked[1])
    fresh = NaiveTransfer(SMALL, trials=5, seed=99)
    fresh.load_weights(agent.weights())
    assert torch.equal(walk(fresh, 12), asked[[0, 1, 0, 1, 0]])


def test_a_meta_trained_trial_is_the_run_of_its_own_seed():
    together = walk(meta_trained(trials=3, seed=5)[0], 12)
    for trial in range(3):
        assert torch.equal(together[trial], walk(meta_trained(trials=1, seed=5 + trial)[0], 12)[0])


@pytest.mark.parametrize("n", [1, 5])
def test_resuming_within_meta_training_changes_nothing(n):
    agent = NaiveTransfer(SMALL, trials=2, trees=8)
    walk(agent, 20, adapting=False)
    agent.begin_task(20, adapting=False)
    archs = agent.ask(n)
    resumed = NaiveTransfer(SMALL, trials=2, seed=77, trees=8)
    resumed.load_state_dict(agent.state_dict())
    for each in (agent, resumed):
        each.tell(archs, other_reward(SMALL, archs))
        for _ in range(2):
            rest = each.ask(n)
            each.tell(rest, other_reward(SMALL, rest))
    assert torch.equal(agent.weights()["ranking"], resumed.weights()["ranking"])
    assert torch.equal(walk(agent, 15, n), walk(resumed, 15, n))


def test_without_sources_the_weights_are_empty_and_it_asks_at_random():
    weights = NaiveTransfer(SMALL).weights()
    agent = NaiveTransfer(SMALL, trials=2)
    agent.load_weights(weights)
    assert torch.equal(walk(agent, 12), walk(NaiveTransfer(SMALL, trials=2), 12))


def test_a_space_too_large_to_rank():
    space = Grid(decisions=30, choices=4)
    agent = NaiveTransfer(space, trials=2)
    asked = walk(agent, 12, n=3)
    assert len({tuple(arch) for arch in asked[0].tolist()}) == 12
    with pytest.raises(ValueError, match=rf"'grid' has {math.prod(space.sizes)} combinations.*leave this agent out"):
        agent.begin_task(20, adapting=False)


def test_refuses_weights_of_another_kind():
    agent = NaiveTransfer(SMALL)
    with pytest.raises(ValueError, match="does not hold the weights of a NaiveTransfer"):
        agent.load_weights(CATCHer(SMALL).weights())
    with pytest.raises(ValueError, match="belong to the space 'masked'"):
        agent.load_weights(NaiveTransfer(MaskedSpace()).weights())
    with pytest.raises(ValueError, match="trees is 0"):
        NaiveTransfer(SMALL, trees=0)
