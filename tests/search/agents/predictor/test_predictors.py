"""What every predictor promises: contracts of an agent that has it, and that it learns."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import spearmanr

from search.agents.base import Agent
from search.agents.predictor.agent import PredictorAgent
from search.agents.predictor.base import Examples, Predictor
from search.agents.predictor.candidates import WholeSpace
from search.contracts import agent as contract
from search.recipes.build import build
from search.recipes.catalogue import find_classes
from search.spaces.base import SearchSpace
from tests.search.agents.toy_spaces import Grid, integer_reward

PREDICTORS = find_classes("search.agents.predictor", Predictor)
CHECKS = (
    contract.a_trial_is_the_run_of_its_own_seed,
    contract.resumes_past_half_way,
)
GENTLE = {
    "GradientBoosting": {"members": 2},
    "MLPEnsemble": {"members": 2},
    "GraphNetwork": {"members": 2},
}

every_predictor = pytest.mark.parametrize("name", PREDICTORS)


def test_there_are_predictors():
    assert set(PREDICTORS) == {"GaussianProcess", "RandomForest", "GradientBoosting", "MLPEnsemble", "GraphNetwork"}


@every_predictor
def test_an_agent_with_it_keeps_its_promises(name):
    """On a whole space; the contract tests have another predictor on drawn candidates."""

    def make(space, trials, seed):
        predictor = build({"class_path": name, "init_args": PREDICTORS[name].toy()}, Predictor, "predictor")
        return PredictorAgent(space, trials, seed, predictor, initial=5)

    subject = contract.AgentSubject(PredictorAgent, "grid", make, Grid(3, 4))
    for check in CHECKS:
        check(subject)


@every_predictor
def test_learns_a_hundred_of_256(name):
    space, predictor = Grid(4, 4), PREDICTORS[name](**GENTLE.get(name, {}))
    pool = WholeSpace(space, predictor.encodings(), {})
    rewards = integer_reward(space, pool._all.archs[0])
    targets = ((rewards - rewards.mean()) / rewards.std()).repeat(2, 1)
    features = pool._all.features.expand(2, -1, -1)
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(0))
    known, others = order[:100], order[100:]
    model = predictor.fit(Examples(features[:, known], targets[:, known], pool.blocks, pool.groups, (1, 2)))
    mean, deviation = model.predict(pool._all.features[:, others])
    assert mean.shape == deviation.shape == (2, len(others)) and (deviation >= 0).all()
    for trial in range(2):
        assert spearmanr(mean[trial], targets[trial, others]).statistic > 0.6


@every_predictor
def test_takes_columns_of_attributes(name):
    """A block more, which says what is wanted."""
    space, predictor = Grid(3, 4), PREDICTORS[name](**GENTLE.get(name, {}))
    pool = WholeSpace(space, predictor.encodings(), {})
    generator = torch.Generator().manual_seed(0)
    column = torch.randn(1, 64, 1, generator=generator)
    features = torch.cat([pool._all.features, column * 0.7], 2)
    blocks = torch.cat([pool.blocks, pool.blocks.max()[None] + 1])
    groups = torch.cat([pool.groups, pool.groups.max()[None] + 1])
    model = predictor.fit(Examples(features[:, :40], column[:, :40, 0].double(), blocks, groups, (1,)))
    high, low = features.clone(), features.clone()
    high[..., -1], low[..., -1] = 1.0, -1.0
    assert float((model.predict(high)[0] - model.predict(low)[0]).mean()) > 0.5


def test_is_asked_of_a_recipe_by_name():
    described = {
        "class_path": "PredictorAgent",
        "init_args": {
            "predictor": {"class_path": "RandomForest", "init_args": {"trees": 3}},
            "encodings": ["OneHotEncoding", {"class_path": "SubtreeEncoding", "init_args": {"depth": 2}}],
        },
    }
    agent = build(described, Callable[[SearchSpace, int, int], Agent], "agents.forest", given=(Grid(3, 3), 2, 0))
    assert agent.predictor.trees == 3 and [type(each).__name__ for each in agent.encodings] == [
        "OneHotEncoding",
        "SubtreeEncoding",
    ]
