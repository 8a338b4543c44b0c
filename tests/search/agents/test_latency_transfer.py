"""Walking down predicted quality times predicted latency."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

from search.agents.latency_transfer import LatencyTransfer
from search.agents.naive_transfer import NaiveTransfer
from search.attributes.few_shot_latency import FewShotLatency
from search.contracts.contract import through_a_file
from search.errors import CatchmarkError
from search.randomness import derive_seed
from search.studies.experiment import Experiment
from search.tasks.latency_reward import LatencyRewardTask
from search.tasks.table import TableTask
from tests.search.tables.latency_tables import SPACE

from .toy_spaces import Grid, integer_reward
from .walking import walk

DEVICE = {"device": "fpga", "held_out": ["eyeriss", "pixel3"], "exponent": -0.3, "trees": 4}
COLUMN = {"table": "nasbench201.npz", "split": "val", "metric": "acc", "epochs": 12}


def accuracy(dataset):
    task = TableTask(SPACE, dataset=dataset, **COLUMN)
    return lambda space, archs: task.scores(archs)


@pytest.fixture(scope="module")
def learned():
    """Two meta-trained trials on two data sets: their weights, and what they evaluated."""
    agent, asked = LatencyTransfer(SPACE, trials=2, trees=4), {}
    for dataset in ("cifar100", "imagenet16_120"):
        archs = walk(agent, 60, n=20, adapting=False, reward=accuracy(dataset))
        asked[dataset] = archs, accuracy(dataset)(SPACE, archs)
    return agent.weights(), asked


def started(learned, trials=2, seed=0, first=0, **arguments):
    agent = LatencyTransfer(SPACE, trials=trials, seed=seed, **DEVICE | arguments)
    agent.load_weights(learned[0], first)
    return agent


def test_walks_down_the_product_of_predicted_quality_and_predicted_latency(learned):
    """Fitted again here; each trial has timed networks of its own."""
    asked = walk(started(learned), 200, n=50)
    everything = torch.cartesian_prod(*(torch.arange(5),) * 6)
    for trial in range(2):
        quality = np.zeros(len(everything))
        for archs, accuracies in learned[1].values():
            forest = RandomForestRegressor(4, random_state=derive_seed(trial, "naive transfer"))
            forest.fit(SPACE.one_hot(archs[trial]).numpy(), (accuracies[trial] / accuracies[trial].mean()).numpy())
            quality += forest.predict(SPACE.one_hot(everything).numpy()) / 2
        latency = FewShotLatency(SPACE, "fpga", DEVICE["held_out"], seed=trial).values(everything).numpy()
        reward = quality * latency**-0.3
        walked = reward[SPACE.code(asked[trial]).numpy()]
        assert np.allclose(walked, np.sort(reward)[::-1][:200], rtol=1e-6)
        assert len(set(SPACE.code(asked[trial]).tolist())) == 200
    assert not torch.equal(asked[0], asked[1])


def test_finds_good_networks_on_a_device_where_the_naive_transfer_does_not(learned):
    task = LatencyRewardTask(SPACE, COLUMN | {"dataset": "cifar10_valid"}, "nasbench201_latency.npz", "fpga", -0.3)
    rewards = task.all_scores()
    naive = NaiveTransfer(SPACE, trials=2, trees=4)
    for archs, accuracies in learned[1].values():
        naive.begin_task(60, adapting=False)
        naive.tell(archs, accuracies)
    ranks = {}
    for name, agent in (("few shot", started(learned)), ("naive", naive)):
        found = rewards[SPACE.code(walk(agent, 30, n=10))].max(1).values
        ranks[name] = [int((rewards > each).sum()) + 1 for each in found]
    assert max(ranks["few shot"]) < 100 < min(ranks["naive"])


def test_the_target_changes_nothing(learned):
    one = walk(started(learned), 20)
    assert torch.equal(walk(started(learned), 20, reward=lambda space, archs: -integer_reward(space, archs)), one)


def test_a_trial_is_the_run_of_its_own_seed(learned):
    together = walk(started(learned, trials=3, seed=5), 30, n=10)
    for trial in range(3):
        alone = walk(started(learned, trials=1, seed=5 + trial, first=trial), 30, n=10)
        assert torch.equal(alone[0], together[trial])


def test_resuming_changes_nothing(learned):
    agent = started(learned)
    walk(agent, 12)
    resumed = LatencyTransfer(SPACE, trials=2, **DEVICE)
    resumed.load_state_dict(through_a_file(agent.state_dict()))
    assert torch.equal(agent.ask(20), resumed.ask(20))


def test_resuming_within_meta_training_changes_nothing():
    space, parts = Grid(decisions=3, choices=4), []
    for interrupted in (False, True):
        agent = LatencyTransfer(space, trials=2, trees=4)
        walk(agent, 20, adapting=False)
        agent.begin_task(20, adapting=False)
        archs = agent.ask(10)
        if interrupted:
            state, agent = agent.state_dict(), LatencyTransfer(space, trials=2, seed=77, trees=4)
            agent.load_state_dict(through_a_file(state))
        agent.tell(archs, integer_reward(space, archs, seed=1))
        parts.append((agent.weights()["quality"], walk(agent, 16)))
    assert all(torch.equal(*pair) for pair in zip(*parts, strict=True))


def test_a_study_tells_it_the_device():
    quality = COLUMN | {"dataset": "cifar100"}
    targets = {
        "phone": lambda space: LatencyRewardTask(space, quality, "nasbench201_latency.npz", "pixel2", -0.3),
        "plain": lambda space: TableTask(space, **quality),
    }
    made = Experiment(SPACE, targets, {"few_shot": LatencyTransfer})
    devices = {name: made.agent("few_shot", trials=1, task=task).device for name, task in made.targets.items()}
    assert devices == {"phone": "pixel2", "plain": ""}


def test_refuses_what_does_not_fit(learned):
    with pytest.raises(CatchmarkError, match=r"agents\.few_shot: .*no device 'pixel33'"):
        Experiment(SPACE, {}, {"few_shot": lambda *a, **k: LatencyTransfer(*a, held_out=["pixel33"], **k)})
    with pytest.raises(ValueError, match="exponent is"):
        LatencyTransfer(SPACE, exponent=0.3)
    with pytest.raises(ValueError, match="its latencies are of the space"):
        LatencyTransfer(Grid(), device="fpga")
    with pytest.raises(ValueError, match="does not hold the weights of a LatencyTransfer"):
        LatencyTransfer(SPACE).load_weights(NaiveTransfer(SPACE).weights())
