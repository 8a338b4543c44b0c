"""The predictor agent: what it never asks, what it asks first, and what attributes are worth."""

import pytest
import torch

from search.agents.predictor.acquisition import acquire
from search.agents.predictor.agent import PredictorAgent
from search.agents.predictor.encodings import OneHotEncoding, names_of
from search.agents.predictor.gaussian_process import GaussianProcess
from search.attributes.base import Attribute
from search.randomness import TrialRandom
from search.recipes.build import build
from search.studies.experiment import Experiment
from tests.search.agents.toy_spaces import Grid, best_reward, integer_reward

from .test_encodings import CELLS, Sum

CHEAP = GaussianProcess(refit=8, steps=3)


def search(agent, evaluations, n=1, reward=integer_reward):
    agent.begin_task(evaluations, True)
    asked = []
    for _ in range(evaluations // n):
        asked.append(agent.ask(n))
        agent.tell(asked[-1], reward(agent.space, asked[-1]))
    return torch.cat(asked, 1)


@pytest.mark.parametrize("whole", [50_000, 0])
@pytest.mark.parametrize("n", [1, 4])
def test_never_asks_a_network_twice(whole, n):
    """Of 1,000 cells no two of those asked compute the same."""
    asked = search(PredictorAgent(CELLS, 2, 0, CHEAP, whole=whole, candidates=30), 32, n)
    names = names_of(CELLS, asked.reshape(64, -1)).reshape(2, 32)
    assert all(len(row.unique()) == 32 for row in names)


@pytest.mark.parametrize("whole", [100, 0])
def test_goes_on_where_everything_is_known(whole):
    space = Grid(2, 3)
    asked = search(PredictorAgent(space, 2, 0, CHEAP, whole=whole, candidates=30, initial=3), 14)
    assert all(len(space.code(row[:9]).unique()) == 9 for row in asked)


def test_first_networks_are_random():
    """Told or not: until there are as many as `initial`, rewards mean nothing; each trial draws others."""
    one = search(PredictorAgent(CELLS, 3, 0, CHEAP, initial=6), 9)
    other = search(PredictorAgent(CELLS, 3, 0, CHEAP, initial=6), 9, reward=lambda *given: -integer_reward(*given))
    assert torch.equal(one[:, :6], other[:, :6]) and not torch.equal(one[:, 6:], other[:, 6:])
    assert not torch.equal(one[0, :6], one[1, :6])


@pytest.mark.parametrize("whole", [50_000, 0])
@pytest.mark.parametrize("direction", ["max", "min"])
def test_an_opening_by_attributes_takes_what_they_hold_best(whole, direction):
    """Each of the first five is the best of 40 random ones of 625: in the top fifth but once in 7,500 times."""
    space = Grid(4, 5)
    attribute = Sum(space)
    attribute.direction = direction
    agent = PredictorAgent(
        space, 3, 0, CHEAP, whole=whole, candidates=40, attributes={"sum": attribute}, opening="attributes"
    )
    asked = search(agent, 6)[:, :5]
    values = torch.tensor(attribute.measure(list(space.enumerate()))).double()
    bound = values.nanquantile(0.8 if direction == "max" else 0.2)
    found = torch.tensor(attribute.measure([tuple(each) for each in asked.reshape(15, -1).tolist()])).double()
    assert (found >= bound if direction == "max" else found <= bound).all()
    assert not torch.equal(asked[0], asked[1])


def test_finds_the_best_of_a_hill():
    """625 architectures, an additive reward: 30 evaluations are enough."""
    space = Grid(4, 5)
    worth = torch.tensor([[0, 3, 1, 7, 2], [5, 1, 0, 2, 2], [0, 0, 6, 1, 3], [2, 9, 4, 4, 0]]).double()

    def reward(_, archs):
        return sum(worth[t][archs[..., t]] for t in range(4))

    asked = search(PredictorAgent(space, 4, 0, GaussianProcess(steps=20)), 30, reward=reward)
    assert (reward(space, asked).amax(1) == worth.amax(1).sum()).all()


def test_a_batch_spreads_out():
    """What is under way is believed to give what is predicted, so its neighbours are not asked at once."""
    space = Grid(4, 5)
    for_batch, alone = (PredictorAgent(space, 4, 0, CHEAP, [OneHotEncoding()], "improvement") for _ in range(2))
    for agent in (for_batch, alone):
        first = space.sample(TrialRandom(3, 4), 12)
        agent.begin_task(50, True)
        agent.tell(first, integer_reward(space, first))
    batch = for_batch.ask(4)
    assert torch.equal(batch[:, :1], alone.ask(1))
    assert (batch[:, 1:] != batch[:, :1]).any(-1).all()
    assert for_batch.pending.shape[1] == 4
    for_batch.tell(batch, integer_reward(space, batch))
    assert for_batch.pending.shape[1] == 0


class Known(Attribute):
    """The reward itself."""

    name = "the reward"

    def measure(self, architectures):
        return integer_reward(self.space, torch.tensor(architectures)).tolist()


@pytest.mark.parametrize("whole", [50_000, 0])
def test_an_attribute_that_knows_it_helps(whole):
    space = Grid(4, 5)
    found = {}
    for attributes in (None, {"known": Known(space)}):
        agent = PredictorAgent(
            space, 6, 0, GaussianProcess(steps=20), whole=whole, candidates=60, attributes=attributes
        )
        asked = search(agent, 16)
        found[attributes is None] = best_reward(space) - integer_reward(space, asked).amax(1)
    print(f"regret without {found[True].tolist()}, with {found[False].tolist()}")
    assert found[False].mean() < 0.6 * found[True].mean()


def test_an_experiment_hands_its_attributes_on_but_to_who_wants_none():
    target = {
        "class_path": "TableTask",
        "init_args": {"table": "nasbench201.npz", "dataset": "cifar10", "split": "test"},
    }
    target["init_args"] |= {"metric": "acc", "epochs": 200}
    recipe = {
        "class_path": "Experiment",
        "init_args": {
            "space": "NASBench201",
            "targets": {"cifar10": target},
            "agents": {
                "predictor": "PredictorAgent",
                "alone": {"class_path": "PredictorAgent", "init_args": {"attributes": {}}},
                "random": "RandomSearch",
            },
            "attributes": {"latency": {"class_path": "TableLatency", "init_args": {"device": "fpga"}}},
        },
    }
    study = build(recipe, Experiment, "study")
    assert set(study.agent("predictor").attributes) == {"latency"} and not study.agent("alone").attributes


@pytest.mark.parametrize(
    "wrong",
    [{"initial": 0}, {"candidates": 0}, {"parents": 0}, {"normalisation": "log"}, {"encodings": []}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_refuses_what_could_only_fail_later(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PredictorAgent(Grid(2, 2), **wrong)


def test_acquisitions():
    mean = torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64)
    deviation = torch.tensor([[2.0, 0.1, 0.6]], dtype=torch.float64)
    targets = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)

    def worth(how, targets=targets):
        return acquire(how, mean, deviation, targets, TrialRandom(0), confidence=2.0)

    assert torch.equal(worth("mean"), mean) and torch.equal(worth("confidence"), mean + 2 * deviation)
    draws = torch.cat([acquire("thompson", mean, deviation, targets, TrialRandom(k)) for k in range(800)])
    assert torch.allclose(draws.mean(0), mean[0], atol=0.3) and torch.allclose(draws.std(0), deviation[0], rtol=0.1)
    gains = (draws - 1.0).clamp(min=0).mean(0)
    assert torch.allclose(worth("improvement").exp()[0], gains, rtol=0.3, atol=0.01)
    assert torch.equal(worth("in turn"), worth("improvement"))
    assert torch.equal(worth("in turn", targets[:, :1]), worth("confidence"))


def test_attributes_without_a_value_are_in_the_middle():
    agent = PredictorAgent(CELLS, 1, 0, CHEAP, attributes={"sum": Sum(CELLS)})
    asked = search(agent, 10)
    assert CELLS.is_valid(asked).all()
