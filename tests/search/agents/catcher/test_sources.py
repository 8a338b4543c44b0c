"""Processes of source tasks against the textbook formula, and codes against what they are said to be."""

import numpy as np
import pytest
import torch

from search.agents.catcher.agent import normalise
from search.agents.catcher.codes import Codes
from search.agents.catcher.sources import SourceProcesses
from search.randomness import TrialRandom
from tests.search.agents.toy_spaces import Grid, integer_reward
from tests.search.attributes.test_quantiles import Cost, Sum

SPACE = Grid()
ATTRIBUTES = {"sum": Sum(SPACE), "cost": Cost(SPACE)}


@pytest.fixture(scope="module", params=[None, ATTRIBUTES], ids=["decisions", "attributes"])
def processes(request):
    """Two tasks of two trials."""
    fitted = SourceProcesses(Codes(SPACE, request.param))
    for seed in (0, 1):
        archs = SPACE.sample(TrialRandom(seed, 2), 20)
        fitted.learn(archs, integer_reward(SPACE, archs, seed))
    return fitted


@pytest.mark.parametrize("attributes", [None, ATTRIBUTES])
def test_two_random_architectures_differ_by_one_over_the_groups_in_every_group(attributes):
    codes = Codes(SPACE, attributes)
    a, b = (codes(SPACE.sample(TrialRandom(seed), 4000)[0]) * codes.scale for seed in (1, 2))
    groups = len(SPACE.sizes) + len(attributes or ())
    assert codes.groups.unique().tolist() == list(range(groups)) and len(codes) == a.shape[1]
    for group in range(groups):
        distance = (a - b)[:, codes.groups == group].square().sum(1).mean()
        assert distance == pytest.approx(1 / groups, rel=0.1)


def test_attributes_that_only_promise_are_no_columns():
    archs = SPACE.sample(TrialRandom(0, 2), 5)
    silent, heard = Codes(SPACE, ATTRIBUTES, read=False), Codes(SPACE, ATTRIBUTES)
    assert torch.equal(silent(archs), SPACE.one_hot(archs)) and silent.names == []
    assert torch.equal(silent.promise(archs), heard(archs)[..., -2:].mean(-1))
    assert heard.names == ["sum", "cost"]
    assert torch.equal(Codes(SPACE).promise(archs), torch.zeros(2, 5))


def by_hand(processes, task, trial, asked):
    """The mean of one process, from inverses and loops."""
    source, codes = processes.sources[task], processes.reader
    blocks = 1 + int(codes.blocks.max())
    noise, constant, *others = source.parameters[trial].exp().tolist()
    heights, weights = others[:blocks], others[blocks:]

    def kernel(ours, theirs):
        a, b = ((codes(each) * codes.scale).double().numpy() for each in (ours, theirs))
        squares = (a[:, None] - b[None]) ** 2
        total = constant
        for block, height in enumerate(heights):
            inside = [k for k in range(len(codes)) if codes.blocks[k] == block]
            exponent = sum(weights[codes.groups[k]] * squares[..., k] for k in inside)
            total = total + height * np.exp(-exponent)
        return total

    known = source.archs[trial]
    between = kernel(known, known) + (noise + 1e-4) * np.eye(len(known))
    return kernel(asked, known) @ np.linalg.inv(between) @ source.targets[trial].numpy()


def test_what_is_expected_is_the_mean_of_the_tasks_processes(processes):
    asked = SPACE.sample(TrialRandom(9, 2), 7)
    found = processes.expected(asked, [0, 1])
    for trial in range(2):
        both = [by_hand(processes, task, trial, asked[trial]) for task in (0, 1)]
        assert np.allclose(found[trial], sum(both) / 2, atol=1e-4)
        alone = processes.expected(asked, [0, 1], without=0)[trial]
        assert np.allclose(alone, both[1], atol=1e-4)
        opinions = processes.opinions(asked, [0, 1])[trial]
        apart = [sum(both) / 2, both[0] - sum(both) / 2, both[1] - sum(both) / 2]
        assert np.allclose(opinions, np.stack(apart, 1), atol=1e-4)
    shared = processes.expected(asked[:1], [1, 0, 1])
    assert torch.equal(shared[0], shared[2]) and torch.equal(shared[1], found[0])


def test_nothing_is_expected_before_there_is_a_task_and_a_state_brings_back_all(processes):
    asked = SPACE.sample(TrialRandom(9, 2), 7)
    again = SourceProcesses(processes.reader)
    assert torch.equal(again.expected(asked, [0, 1]), torch.zeros(2, 7, dtype=torch.float64))
    assert torch.equal(again.opinions(asked, [0, 1]), torch.zeros(2, 7, 2))
    again.load_state_dict(processes.state_dict())
    assert torch.equal(again.expected(asked, [0, 1]), processes.expected(asked, [0, 1]))


def test_targets_are_normal_quantiles(processes):
    source = processes.sources[1]
    assert torch.equal(source.targets, normalise(integer_reward(SPACE, source.archs, 1), "rank").double())
