"""Rewards of a trained quality and a measured latency."""

import math

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn

from datamodules.digits import DigitsDataModule
from lightning_modules.classification import ClassificationModule
from lightning_modules.networks.cost.latency import LatencySettings
from lightning_modules.networks.cost.operator_latency import OperatorLatencies, operators_of
from search.agents.random_search import RandomSearch
from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation, Objective, Proposal
from search.executors.inline import evaluate_one
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.recipes.recipe import load_recipe
from search.runs.journal import Journal
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import Head
from search.tasks.measured_latency import MeasuredLatencyTask
from search.tasks.trained import TrainedTask
from tests.search.evaluating import answer

SETTINGS = LatencySettings(resolution=8, channels=1)
QUICK = {"resolution": 8, "warmup": 0, "repeats": 1, "rounds": 1}


class Network(nn.Module):
    """A classifier with a backbone, as residual backbones build it."""

    def __init__(self, width, num_classes, in_channels):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(in_channels, width, 3, 2), nn.ReLU(), nn.Conv2d(width, 4, 1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

    def forward(self, images):
        return self.head(self.backbone(images))


class Widths(SearchSpace):
    """Networks of different operators; the last one can be built and not run."""

    name = "widths"
    decisions = (Decision("width", ("2", "4", "8", "0")),)

    def build(self, architecture, head=Head(10, 1)):  # noqa: B008 - frozen
        width = int(self.decisions[0].choices[architecture[0]])
        return Network(width, head.classes, head.in_channels) if width else nn.Sequential(nn.Linear(7, 7))


SPACE = Widths()


def trained(space=SPACE, **options):
    data = DigitsDataModule(batch_size=500)
    return TrainedTask(space, data, **({"epochs": 1, "trainer": {"accelerator": "cpu"}, "threads": 1} | options))


def make(task=trained, **options):
    if "target" not in options:
        options.setdefault("target_milliseconds", 2.0)
    return MeasuredLatencyTask(SPACE, task, **(QUICK | options))


def write_table(path, backbone=False):
    """Made-up milliseconds for every operator of the first three networks; their sums by architecture."""
    times, sums = {}, {}
    for choice in range(3):
        network = SPACE.build((choice,))
        operators = operators_of(network.backbone if backbone else network, SETTINGS)
        for operator in operators:
            times.setdefault(operator, 0.5 + 0.25 * len(times))
        sums[(choice,)] = math.fsum(times[operator] for operator in operators)
    OperatorLatencies(SETTINGS, times).save(path)
    assert len(set(sums.values())) == 3
    return sums


class Known(TrainedTask):
    """Says what training gave without doing it."""

    evaluation = Evaluation(80.0, {"val_loss": 0.5, "parameters": 7.0}, 30.0)

    def evaluate_one(self, proposal):
        return self.evaluation


def known(space, **evaluation):
    task = Known(space, DigitsDataModule())
    if evaluation:
        task.evaluation = Evaluation(**evaluation)
    return task


def test_the_reward_by_hand(tmp_path):
    sums = write_table(tmp_path / "table.json")
    task = make(known, lookup=str(tmp_path / "table.json"), target_milliseconds=2.5, exponent=-0.3)
    for architecture, milliseconds in sums.items():
        got = answer(task, Proposal(architecture, seed=1))
        assert got.score == pytest.approx(80.0 * (milliseconds / 2.5) ** -0.3, rel=1e-12)
        assert got.metrics == {"val_loss": 0.5, "parameters": 7.0, "quality": 80.0, "latency_ms": milliseconds}
        assert got.status == "ok" and got.cost_seconds > 30.0
    assert task.objectives == {"quality": Objective("max"), "latency_ms": Objective("min")}
    assert task.score_name == "validation accuracy (%) x (latency / 2.5 ms)^-0.3"


def test_a_limit_of_the_latency_or_of_what_trains(tmp_path):
    sums = write_table(tmp_path / "table.json")

    def limited(space):
        task = known(space)
        task.objectives = {"val_accuracy": {"direction": "max", "limit": 160}, "parameters": "min"}
        return task

    limit = {"latency_ms": {"direction": "min", "limit": sums[(1,)] / 2}}
    options = {"lookup": str(tmp_path / "table.json"), "target_milliseconds": 2.5, "exponent": -0.3}
    missed = evaluate_one(make(limited, **options, objectives=limit), Proposal((1,)))
    assert missed.violation == pytest.approx(1.0 + 0.5) and missed.score > 0 and missed.status == "ok"
    assert evaluate_one(make(known, **options), Proposal((1,))).violation == 0
    unknown = make(known, **options, objectives={"latency": "min"})
    with pytest.raises(CatchmarkError, match="objectives: 'latency' is not logged; did you mean 'latency_ms'"):
        evaluate_one(unknown, Proposal((1,)))


def test_what_trains_is_asked_for_fewer_epochs_and_never_to_stop():
    task = make(known, target_milliseconds=1.0)
    assert task.honours == {"epochs"} and task.task.honours == {"epochs", "stop_below"}
    with pytest.raises(RunError, match=r"asks for stop_below, which MeasuredLatencyTask does not honour"):
        evaluate_one(task, Proposal((1,), stop_below=3.0))


def test_the_target_can_be_an_architecture(tmp_path):
    sums = write_table(tmp_path / "table.json")
    task = make(known, lookup=str(tmp_path / "table.json"), target="width=4")
    assert task.terms[0].target_milliseconds() == sums[(1,)]
    assert answer(task, Proposal((1,))).score == 80.0
    assert answer(task, Proposal((2,))).score == pytest.approx(80.0 * (sums[(2,)] / sums[(1,)]) ** -0.07, rel=1e-12)


def test_quality_is_what_the_other_task_gives_when_it_really_trains(tmp_path):
    sums = write_table(tmp_path / "table.json")
    plain = answer(trained(), Proposal((2,), seed=3))
    got = answer(make(lookup=str(tmp_path / "table.json")), Proposal((2,), seed=3))
    assert got.metrics == plain.metrics | {"quality": plain.score, "latency_ms": sums[(2,)]}
    assert got.score == pytest.approx(plain.score * (sums[(2,)] / 2.0) ** -0.07, rel=1e-12)


def test_a_measured_network():
    random = torch.get_rng_state()
    got = answer(make(known), Proposal((0,), seed=0))
    assert got.metrics["latency_ms"] > 0
    assert got.score == pytest.approx(80.0 * (got.metrics["latency_ms"] / 2.0) ** -0.07, rel=1e-12)
    assert torch.equal(torch.get_rng_state(), random)


def test_operators_are_measured_once_and_kept(tmp_path):
    path = tmp_path / "table.json"
    first = answer(make(known, lookup=str(path)), Proposal((0,), seed=0))
    text = path.read_text()
    again = make(known, lookup=str(path))
    assert answer(again, Proposal((0,), seed=0)).score == first.score and path.read_text() == text
    answer(again, Proposal((2,), seed=0))
    assert len(path.read_text()) > len(text)  # another width, so other operators
    assert answer(make(known, lookup=str(path)), Proposal((0,), seed=0)).score == first.score


def test_a_child_that_fails_is_passed_on():
    failed = {"score": math.nan, "status": "failed", "reason": "diverged", "cost_seconds": 4.0}
    got = answer(make(lambda space: known(space, **failed)), Proposal((0,)))
    assert (got.status, got.reason, got.cost_seconds, got.metrics) == ("failed", "diverged", 4.0, {})


def test_a_network_that_cannot_be_run_is_a_failed_evaluation():
    got = answer(make(known), Proposal((3,)))
    assert got.status == "failed" and got.reason.startswith("no latency: RuntimeError") and math.isnan(got.score)
    assert got.cost_seconds > 30.0


def test_a_negative_quality_is_refused():
    with pytest.raises(CatchmarkError, match=r"is -0\.5; below 0 .* never negative"):
        answer(make(lambda space: known(space, score=-0.5)), Proposal((0,)))


class Dense(LightningModule):
    """A module that takes the backbone only."""

    def __init__(self, network):
        super().__init__()
        self.backbone = network.backbone


@pytest.mark.parametrize(
    "module, part, backbone",
    [
        (None, None, False),
        (ClassificationModule, None, False),
        (Dense, None, True),
        (Dense, "network", False),
        (None, "backbone", True),
    ],
)
def test_what_runs_is_what_is_trained(tmp_path, module, part, backbone):
    sums = write_table(tmp_path / "table.json", backbone)
    task = make(lambda space: Known(space, DigitsDataModule(), module), part=part, lookup=str(tmp_path / "table.json"))
    text = (tmp_path / "table.json").read_text()
    assert answer(task, Proposal((1,))).metrics["latency_ms"] == sums[(1,)]
    assert (tmp_path / "table.json").read_text() == text  # every operator of that part was in it


def test_a_space_without_backbones_has_none_to_measure():
    with pytest.raises(CatchmarkError, match="networks of the space 'widths' have no backbone; use 'network'"):
        answer(make(known, part="backbone"), Proposal((3,)))
    assert answer(make(lambda space: Known(space, DigitsDataModule(), Dense)), Proposal((3,))).status == "failed"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"target_milliseconds": None}, "either target_milliseconds or target"),
        ({"target": "width=2", "target_milliseconds": 1.0}, "either target_milliseconds or target"),
        ({"target": "width=3"}, "width=3"),
        ({"target_milliseconds": 0.0}, "target_milliseconds is 0"),
        ({"target_milliseconds": -2.0}, "target_milliseconds is -2"),
        ({"target_milliseconds": math.nan}, "target_milliseconds is nan"),
        ({"target_milliseconds": math.inf}, "target_milliseconds is inf"),
        ({"exponent": math.nan}, "exponent is nan, it must be a number of at most 0"),
        ({"exponent": -math.inf}, "exponent is -inf"),
        ({"exponent": 0.07}, "exponent is 0.07"),
        ({"part": "head"}, "part is 'head', allowed: network, backbone"),
        ({"resolution": 0}, "resolution is 0"),
        ({"device": "cuda:99"}, "device is 'cuda:99', this machine has: cpu"),
        ({"lookup": "/nowhere/table.json"}, "no folder '/nowhere'"),
    ],
)
def test_mistakes_are_refused_before_a_search_begins(options, words):
    with pytest.raises(ValueError, match=words):
        make(known, **options)


def test_a_table_of_another_setting_is_refused_before_a_search_begins(tmp_path):
    write_table(tmp_path / "table.json")
    with pytest.raises(ValueError, match="batch 1, those of batch 2 are needed"):
        make(known, lookup=str(tmp_path / "table.json"), batch=2)


# ---- searches ---------------------------------------------------------------------------------------------------


class Stopped(TrainedTask):
    """Trains so many children, then stops as Ctrl+C does."""

    children = math.inf

    def evaluate_one(self, proposal):
        if self.children <= 0:
            raise KeyboardInterrupt
        self.children -= 1
        return super().evaluate_one(proposal)


def stopped(children):
    def build(space):
        task = Stopped(space, DigitsDataModule(batch_size=500), epochs=1, trainer={"accelerator": "cpu"}, threads=1)
        task.children = children
        return task

    return build


def run(journal_path, children=math.inf, **options):
    """Search; the records as far as it came, without their times."""
    journal = Journal(journal_path)
    stage = Stage("digits", lambda: make(stopped(children), **options), 4, True)
    try:
        run_search(Search("digits/random", RandomSearch(SPACE, 1, 7), [stage], seed=7), journal)
    except KeyboardInterrupt:
        pass
    records = list(journal.records("digits/random"))
    journal.close()
    return [
        (record.architecture, record.evaluation.score, record.evaluation.metrics, record.evaluation.status)
        for record in records
    ]


def same(left, right):
    return repr(left) == repr(right)  # NaN equals itself


def test_a_search_that_is_resumed_is_the_one_that_never_stopped(tmp_path):
    write_table(tmp_path / "table.json")
    whole = run(tmp_path / "whole.sqlite", lookup=str(tmp_path / "table.json"))
    begun = run(tmp_path / "halves.sqlite", children=2, lookup=str(tmp_path / "table.json"))
    assert len(begun) == 2 and len(whole) == 4 and any(each[3] == "ok" for each in whole)
    assert same(run(tmp_path / "halves.sqlite", lookup=str(tmp_path / "table.json")), whole)


def test_what_was_measured_stays_in_the_journal(tmp_path):
    begun = run(tmp_path / "search.sqlite", children=3)
    assert len(begun) == 3
    ended = run(tmp_path / "search.sqlite")
    assert len(ended) == 4 and same(ended[:3], begun)


def test_a_recipe_names_both_tasks(tmp_path):
    (tmp_path / "latency.yaml").write_text(
        f"""
space: NASBench201
targets:
  fast:
    class_path: MeasuredLatencyTask
    init_args:
      task:
        class_path: TrainedTask
        init_args:
          data: {{class_path: DigitsDataModule, init_args: {{batch_size: 500}}}}
          epochs: 1
          build: {{channels: 4, cells: 1}}
          trainer: {{accelerator: cpu}}
      target: "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"
      resolution: [8, 16]
      lookup: {tmp_path / "table.json"}
      repeats: 2
      rounds: 1
agents: {{random: RandomSearch}}
budget: 1
"""
    )
    study, resolved = load_recipe(tmp_path / "latency.yaml")
    task = study.targets["fast"]
    assert isinstance(task, MeasuredLatencyTask) and task.task.space is study.space
    assert task.terms[0].settings.input_shape == (1, 1, 8, 16) and task.terms[0].alpha == -0.07
    got = answer(task, Proposal((3, 0, 0, 0, 0, 0), seed=0))
    assert got.status == "ok" and got.score == got.metrics["quality"]  # it is the target
    (tmp_path / "again.yaml").write_text(resolved)
    again, _ = load_recipe(tmp_path / "again.yaml")
    assert answer(again.targets["fast"], Proposal((3, 0, 0, 0, 0, 0), seed=0)).score == got.score
    wrong = (tmp_path / "latency.yaml").read_text().replace("class_path: TrainedTask", "class_path: TrainTask")
    (tmp_path / "wrong.yaml").write_text(wrong)
    with pytest.raises(CatchmarkError, match=r"targets\.fast\.init_args\.task.*TrainedTask"):
        load_recipe(tmp_path / "wrong.yaml")
