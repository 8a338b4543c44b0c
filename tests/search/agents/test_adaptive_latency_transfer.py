"""Timed networks and source tasks are the prior, and the target's rewards correct it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.ensemble import RandomForestRegressor

from search.agents import latency_transfer
from search.agents.adaptive_latency_transfer import AdaptiveLatencyTransfer
from search.agents.latency_transfer import LatencyTransfer
from search.agents.naive_transfer import NaiveTransfer
from search.attributes.few_shot_latency import FewShotLatency
from search.contracts.contract import through_a_file
from search.errors import CatchmarkError
from search.randomness import derive_seed
from search.studies.experiment import Experiment
from search.tables.latency import read_latency
from search.tasks.latency_reward import LatencyRewardTask
from search.tasks.table import TableTask
from tests.search.tables.latency_tables import SPACE

from .toy_spaces import Grid, integer_reward
from .walking import other_reward, walk

DEVICE = {"device": "fpga", "held_out": ["eyeriss", "pixel3"], "exponent": -0.3, "trees": 4}
EVERYTHING = torch.cartesian_prod(*(torch.arange(5),) * 6)


def first(space, archs):
    """A source's quality: every decision is best made by its last choice."""
    return 10 + archs.sum(-1).double()


def second(space, archs):
    """Another source's, which has more to say of the early decisions; no two architectures score the same."""
    return 10 + (archs * 0.5 ** torch.arange(6)).sum(-1).double()


def contrary(space, archs):
    """The target's: best is the third choice, neither fast nor what the sources like."""
    return 10 + torch.tensor([3.0, 1.0, 4.0, 2.0, 0.0]).double()[archs].sum(-1)


@pytest.fixture(scope="module")
def learned():
    """Two meta-trained trials on two source tasks: their weights, and what they evaluated."""
    agent = AdaptiveLatencyTransfer(SPACE, trials=2, trees=4)
    asked = [(walk(agent, 60, n=20, adapting=False, reward=reward), reward) for reward in (first, second)]
    return agent.weights(), asked


def started(learned, kind=AdaptiveLatencyTransfer, trials=2, seed=0, rotated=0, **arguments):
    agent = kind(SPACE, trials=trials, seed=seed, **DEVICE | arguments)
    agent.load_weights(learned[0], rotated)
    agent.begin_task(50, adapting=True)
    return agent


def predicted(learned, trial, device="fpga"):
    """The reward of every architecture by forests and timed networks, fitted again here."""
    quality = np.zeros(len(EVERYTHING))
    for archs, reward in learned[1]:
        rewards = reward(SPACE, archs[trial]).numpy()
        forest = RandomForestRegressor(4, random_state=derive_seed(trial, "naive transfer"))
        forest.fit(SPACE.one_hot(archs[trial]).numpy(), rewards / rewards.mean())
        quality += forest.predict(SPACE.one_hot(EVERYTHING).numpy()) / 2
    if not device:
        return quality
    return quality * FewShotLatency(SPACE, device, DEVICE["held_out"], seed=trial).values(EVERYTHING).numpy() ** -0.3


@pytest.mark.parametrize("device", ["fpga", ""], ids=["device", "no device"])
def test_prior_is_the_normal_quantile_of_the_place_by_predicted_reward(learned, device):
    prior = started(learned, device=device).prior().numpy()
    for trial in range(2):
        reward, order = predicted(learned, trial, device), np.argsort(-prior[trial])
        assert np.allclose(reward[order], np.sort(reward)[::-1], rtol=1e-6)
        assert np.allclose(prior[trial][order], norm.ppf((15625 - np.arange(15625) - 0.5) / 15625))


def test_asks_in_the_order_of_latency_transfer_until_there_is_a_reward(learned):
    asked = started(learned).ask(40)
    for trial in range(2):
        reward = predicted(learned, trial)
        assert np.allclose(reward[SPACE.code(asked[trial]).numpy()], np.sort(reward)[::-1][:40], rtol=1e-6)
    assert torch.equal(asked, started(learned, LatencyTransfer).ask(40))


def test_the_order_is_found_once_for_the_same_qualities_and_anew_for_others(learned):
    agent = started(learned)
    first = agent._ranked()
    agent.tell(agent.ask(2), torch.ones(2, 2).double())
    assert agent._ranked() is first
    agent.load_weights(learned[0], 1)
    other = agent._ranked()
    assert not torch.equal(other, first) and torch.equal(other, started(learned, rotated=1)._ranked())


def test_learns_the_same_of_the_sources_as_latency_transfer(learned):
    other = LatencyTransfer(SPACE, trials=2, trees=4)
    for archs, reward in learned[1]:
        assert torch.equal(walk(other, 60, n=20, adapting=False, reward=reward), archs)
    assert torch.equal(other.weights()["quality"], learned[0]["quality"])


@pytest.mark.parametrize("adapts_on", ["ranks", "rewards"])
def test_finds_the_best_where_the_target_contradicts_the_prior(learned, adapts_on):
    """In 40 of 15,625; `LatencyTransfer`, which asks the same first, stays with the prior."""
    ours = walk(started(learned, adapts_on=adapts_on), 40, reward=contrary)
    theirs = walk(started(learned, LatencyTransfer), 40, reward=contrary)
    assert torch.equal(ours[:, 0], theirs[:, 0])
    best = contrary(SPACE, EVERYTHING).max()
    found, stayed = (contrary(SPACE, asked).amax(1) for asked in (ours, theirs))
    print(f"best found {found.tolist()} against {stayed.tolist()}; there is {best}")
    assert (found == best).all() and (stayed < best - 5).all()


def test_reads_nothing_of_the_device_but_what_it_times(learned, monkeypatch):
    table, whole = read_latency("nasbench201_latency.npz", SPACE), started(learned, trials=1)
    timed = SPACE.code(torch.tensor(FewShotLatency(SPACE, "fpga", DEVICE["held_out"]).timed))
    before, asked = whole.prior(), walk(whole, 8)

    def with_column(column):
        changed = table.milliseconds.clone()
        changed[:, table.devices.index("fpga")] = column
        monkeypatch.setattr(latency_transfer, "read_latency", lambda *_: replace(table, milliseconds=changed))
        return started(learned, trials=1)

    for filler in (torch.nan, 1e6):
        column = torch.full((15625,), filler, dtype=torch.float64)
        column[timed] = table.of("fpga")[timed]
        assert torch.equal(walk(with_column(column), 8), asked)
    column[timed[4]] *= 2
    assert not torch.equal(with_column(column).prior(), before)


def test_a_network_without_a_latency_counts_as_the_worst_so_far(learned):
    """The first fails too, before there is a worst; the process never sees NaN."""
    agent = started(learned)
    for k in range(12):
        asked = agent.ask(1)
        rewards = contrary(SPACE, asked)
        agent.tell(asked, rewards.where(torch.tensor(k % 3 > 0), torch.nan))
    assert agent.rewards.isfinite().all() and (agent.rewards[:, 0] == 0).all()
    for k in (3, 6, 9):
        known = torch.cat([agent.rewards[:, each : each + 1] for each in range(k) if each % 3], 1)
        assert torch.equal(agent.rewards[:, k], known.amin(1))
    assert all(len(row.unique()) == 12 for row in agent.told)


def test_a_trial_is_the_run_of_its_own_seed(learned):
    together = walk(started(learned, trials=3, seed=5), 12, n=2, reward=other_reward)
    for trial in range(3):
        alone = walk(started(learned, trials=1, seed=5 + trial, rotated=trial), 12, n=2, reward=other_reward)
        assert torch.equal(alone[0], together[trial])


def test_resuming_changes_nothing(learned):
    agent = started(learned)
    walk(agent, 8)
    resumed = AdaptiveLatencyTransfer(SPACE, trials=2, **DEVICE)
    resumed.load_state_dict(through_a_file(agent.state_dict()))
    for _ in range(4):
        asked = agent.ask(2)
        assert torch.equal(resumed.ask(2), asked)
        for each in (agent, resumed):
            each.tell(asked, integer_reward(SPACE, asked))


def test_a_study_tells_it_the_device():
    quality = {"table": "nasbench201.npz", "dataset": "cifar100", "split": "val", "metric": "acc", "epochs": 12}
    targets = {
        "phone": lambda space: LatencyRewardTask(space, quality, "nasbench201_latency.npz", "pixel2", -0.3),
        "plain": lambda space: TableTask(space, **quality),
    }
    made = Experiment(SPACE, targets, {"timed": AdaptiveLatencyTransfer})
    devices = {name: made.agent("timed", trials=1, task=task).device for name, task in made.targets.items()}
    assert devices == {"phone": "pixel2", "plain": ""}


def test_refuses_what_does_not_fit():
    with pytest.raises(CatchmarkError, match=r"agents\.timed: .*no device 'pixel33'"):
        Experiment(SPACE, {}, {"timed": lambda *a, **k: AdaptiveLatencyTransfer(*a, held_out=["pixel33"], **k)})
    for wrong in ({"exponent": 0.3}, {"refit": 0}, {"adapts_on": "places"}, {"trees": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            AdaptiveLatencyTransfer(SPACE, **wrong)
    with pytest.raises(ValueError, match="its latencies are of the space"):
        AdaptiveLatencyTransfer(Grid(), device="fpga")
    with pytest.raises(ValueError, match="does not hold the weights of a AdaptiveLatencyTransfer"):
        AdaptiveLatencyTransfer(SPACE).load_weights(NaiveTransfer(SPACE).weights())
