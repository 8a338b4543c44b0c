"""Rewards put together from terms."""

import math

import pytest
import torch
import yaml

from search.errors import CatchmarkError
from search.evaluation import Evaluation, Objective, Proposal
from search.recipes.recipe import load_recipe
from search.rewards.base import RewardTerm
from search.rewards.latency import TableLatency
from search.spaces.nasbench201 import OPERATION_NAMES, NASBench201
from search.tasks.base import OneByOne
from search.tasks.reward import RewardTask
from search.tasks.table import TableTask
from tests.search.evaluating import evaluate

SPACE = NASBench201()


class Place(OneByOne):
    """The quality is the index in the benchmark; every seventh fails."""

    score_name = "place"
    instant = True

    def __init__(self, space, shift=0.0):
        self.space, self.shift = space, shift

    def evaluate_one(self, proposal):
        index = self.space.index(proposal.architecture)
        if index % 7 == 0:
            return Evaluation.failed("a seventh", 1.0)
        return Evaluation(index + self.shift, {"seed": float(proposal.seed)}, 2.0)

    def all_scores(self):
        index = self.space.indices_by_code
        return torch.where(index % 7 == 0, math.nan, index + self.shift)


class Convolutions(RewardTerm):
    """A power of how many convolutions there are."""

    name, quantity, described = "convolutions", "convolutions", "(1 + convolutions)^-0.37"
    instant = True
    wanted = OPERATION_NAMES.index("nor_conv_3x3")

    def measure(self, archs):
        return (archs == self.wanted).sum(1).double()

    def weigh(self, measured):
        return (1 + measured) ** -0.37


class Skips(Convolutions):
    """Not known of a cell with six of them."""

    name, quantity, direction, described, instant = "skips", "skip connections", "max", "skips / 6", False
    wanted = OPERATION_NAMES.index("skip_connect")

    def weigh(self, measured):
        return torch.where(measured == 6, math.nan, measured / 6)


def archs_of(*indices):
    return [SPACE.from_index(index) for index in indices]


def test_terms_multiply_and_leave_what_they_measured():
    task = RewardTask(SPACE, Place, [Convolutions, Skips])
    assert task.score_name == "place x (1 + convolutions)^-0.37 x skips / 6"
    wanted = {"quality": "max", "convolutions": "min", "skips": "max"}
    assert task.objectives == {name: Objective(each) for name, each in wanted.items()} and not task.instant
    (arch,) = archs_of(100)
    found = evaluate(task, arch, 5)
    convolutions, skips = arch.count(Convolutions.wanted), arch.count(Skips.wanted)
    assert found.metrics == {"seed": 5.0, "quality": 100.0, "convolutions": convolutions, "skips": skips}
    assert found.score == pytest.approx(100 * (1 + convolutions) ** -0.37 * skips / 6)
    assert list(task.parts()) == ["task"] and task.parts()["task"] is task.task


def test_terms_add_up_where_that_is_wanted():
    task = RewardTask(SPACE, lambda space: Place(space, -1000.0), [Convolutions], combine="sum")
    (arch,) = archs_of(100)
    assert task.score_name == "place + (1 + convolutions)^-0.37"
    convolutions = arch.count(Convolutions.wanted)
    assert evaluate(task, arch, 0).score == pytest.approx(-900 + (1 + convolutions) ** -0.37)


def test_a_reward_does_not_depend_on_what_is_evaluated_together():
    task = RewardTask(SPACE, Place, [Convolutions])
    archs = archs_of(*range(1, 60))
    together = list(task.evaluate([Proposal(arch, seed) for seed, arch in enumerate(archs)]))
    assert together == [evaluate(task, arch, seed) for seed, arch in enumerate(archs)]
    everything = task.all_scores()
    for arch, found in zip(archs, together, strict=True):
        known = everything[SPACE.code(torch.tensor(arch))].item()
        assert known == found.score or (math.isnan(known) and found.status == "failed")
    objectives = task.all_objectives()
    assert objectives.shape == (15625, 2) and list(task.evaluate([])) == []
    assert objectives[SPACE.code(torch.tensor(archs[1]))].tolist() == [2.0, archs[1].count(Convolutions.wanted)]


def test_what_else_the_task_wants_is_known_of_the_whole_space():
    """A second data set's accuracy, an objective of the inner task, stands beside quality and the term's quantity."""
    column = {"table": "nasbench201.npz", "dataset": "cifar100", "split": "val", "metric": "acc", "epochs": 12}
    other = {**column, "dataset": "imagenet16_120"}
    del other["table"]
    name = "imagenet16_120_val_acc_12ep"
    wanted = {name: {"direction": "max", "limit": 20.0}}
    task = RewardTask(
        SPACE,
        lambda space: TableTask(space, **column, also=[other], objectives=wanted),
        [Convolutions],
    )
    assert list(task.objectives) == ["quality", "convolutions", name]
    values, scores = task.all_objectives(), task.all_scores()
    assert values.shape == (15625, 3)
    for arch in archs_of(3, 500, 9000, 15000):
        found, row = evaluate(task, arch, 0), SPACE.code(torch.tensor(arch))
        assert values[row, 2].item() == found.metrics[name] and values[row, 1].item() == found.metrics["convolutions"]
        assert scores[row].isnan().item() == (found.metrics[name] < 20)  # the inner limit holds here too


def test_failures_are_passed_on_or_named():
    task = RewardTask(SPACE, Place, [Skips])
    failed = evaluate(task, archs_of(7)[0], 0)
    assert (failed.status, failed.reason, failed.cost_seconds) == ("failed", "a seventh", 1.0)
    skips = evaluate(task, (Skips.wanted,) * 6, 0)
    assert skips.status == "failed" and skips.reason.startswith("no skip connections was measured of |skip_connect~0|")

    class Broken(Skips):
        def measure(self, archs):
            raise RuntimeError("no ruler")

    broken = evaluate(RewardTask(SPACE, Place, [Broken]), archs_of(8)[0], 0)
    assert broken.status == "failed" and broken.reason.startswith("no skip connections: RuntimeError: no ruler")


def test_what_makes_no_reward_is_refused():
    with pytest.raises(ValueError, match="combine is 'mean', allowed: product, sum"):
        RewardTask(SPACE, Place, [Skips], combine="mean")
    with pytest.raises(ValueError, match="terms: at least one is needed"):
        RewardTask(SPACE, Place, [])
    with pytest.raises(ValueError, match="of each name no more, these are"):
        RewardTask(SPACE, Place, [Skips, Skips])
    with pytest.raises(CatchmarkError, match=r"is -9e\+03; below 0 a slower network would be worth more"):
        evaluate(RewardTask(SPACE, lambda space: Place(space, -9001.0), [Skips]), archs_of(1)[0], 0)


def test_a_recipe_names_terms(tmp_path, real_data):
    latency = {
        "class_path": "TableLatency",
        "init_args": {
            "latency_table": str(real_data("nasbench201_latency.npz")),
            "device": "eyeriss",
            "alpha": 0.0,
            "beta": -1.0,
        },
    }
    quality = {
        "class_path": "TableTask",
        "init_args": {
            "table": str(real_data("nasbench201.npz")),
            "dataset": "cifar10_valid",
            "split": "val",
            "metric": "acc",
            "epochs": 200,
        },
    }
    recipe = {
        "targets": {"hard": {"class_path": "RewardTask", "init_args": {"task": quality, "terms": [latency]}}},
        "space": "NASBench201",
        "agents": {"random": "RandomSearch"},
        "budget": 5,
        "trials": 1,
    }
    path = tmp_path / "hard.yaml"
    path.write_text(yaml.safe_dump(recipe))
    study, _ = load_recipe(path)
    task = study.targets["hard"]
    (term,) = task.terms
    assert isinstance(term, TableLatency) and task.instant and term.described.endswith("^(0 below, -1 above)")
    scores, (quality, latency) = task.all_scores(), task.all_objectives().T
    fast = latency <= term.target
    assert torch.equal(scores[fast], quality[fast])
    slow = ~fast & ~scores.isnan()
    torch.testing.assert_close(scores[slow], quality[slow] * term.target / latency[slow])
