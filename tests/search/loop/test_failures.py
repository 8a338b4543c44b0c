"""Evaluations that fail: told at once, counted, never the end of a run unless no architecture has a part in it."""

import json
import math
import os
import re
import sys

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from search.cli import main
from search.evaluation import Evaluation
from search.listeners.progress import FirstFailure, ProgressBar
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.studies.experiment import Experiment
from search.tables.table import write_table
from search.tasks.base import OneByOne
from tests.search.evaluating import evaluate
from tests.search.listeners.test_progress import Screen, records, search

SPACE = NASBench201()
HERE = "tests.search.loop.test_failures"
DIGITS = {"class_path": "DigitsDataModule", "init_args": {"batch_size": 300}}


class Scripted(OneByOne):
    """Gives one answer after another, the last for ever: a number is a score, anything else is what to do.

    Args:
        space: of the architectures.
        script: the name of the answers in `SCRIPTS`.
        instant: whether it is a look-up.
    """

    made = 0

    def __init__(self, space, script: str, instant: bool = False):
        self.space, self.script, self.instant = space, SCRIPTS[script], instant

    def evaluate_one(self, proposal):
        answer = self.script[min(Scripted.made, len(self.script) - 1)]
        Scripted.made += 1
        if callable(answer):
            answer = answer()
        return answer if isinstance(answer, Evaluation) or answer is None else Evaluation(answer, cost_seconds=1.0)


def fail(reason="no luck"):
    raise ValueError(reason)


def stop():
    raise KeyboardInterrupt


SCRIPTS = {
    "good": [1.0, 2.0],
    "never": [fail],
    "mostly": [fail, lambda: fail("another"), fail, fail, fail, lambda: fail("another")],
    "some": [1.0, fail, 2.0, lambda: fail("no such thing")],
    "large": [1.0, 1e308, -1e308, 2.0],
    "infinite": [
        1.0,
        Evaluation(math.inf, {"loss": math.nan}),
        Evaluation(math.nan),
        Evaluation(2.0, {"loss": math.inf, "accuracy": 3.0, "huge": 1e308}, history=[{"loss": math.inf, "a": 1.0}]),
        Evaluation(3.0, cost_seconds=math.inf),
        Evaluation(4.0, cost_seconds=-1.0),
        Evaluation(5.0, cost_seconds=math.nan),
    ],
}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(Scripted, "made", 0)
    monkeypatch.chdir(tmp_path)


def scripted(script, **arguments):
    return {"class_path": f"{HERE}.Scripted", "init_args": {"script": script, **arguments}}


def write(targets, name="r", **more):
    recipe = {"space": "NASBench201", "targets": targets, "agents": {"random": "RandomSearch"}, "budget": 6, **more}
    with open(f"{name}.yaml", "w") as file:
        file.write(dump_yaml(recipe))


@pytest.fixture
def run(capsys):
    """Run the recipe: the exit code, and the lines on standard error and on standard output."""

    def call(*words, quiet=True):
        capsys.readouterr()
        code = main(["run", *(words or ("r.yaml",)), *(["--quiet"] if quiet else [])])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.err.splitlines(), said.out.splitlines()

    return call


def summary(name="r"):
    with open(f"runs/{name}/latest/summary.json") as file:
        return json.loads(file.read(), parse_constant=lambda constant: pytest.fail(constant))


def journal_of(name="r", search="t/random"):
    journal = Journal(f"runs/{name}/latest/journal.sqlite", writable=False)
    try:
        return list(journal.records(search))
    finally:
        journal.close()


# ---- told ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instant", [False, True])
def test_the_first_failure_is_told_and_others_are_counted(run, instant):
    write({"t": scripted("some", instant=instant)})
    code, errors, output = run()
    assert code == 0
    assert errors == [errors[0], "failed: 4 of 6 evaluations, the report says why"]
    assert re.fullmatch(r"t/random: an evaluation failed: ValueError: no luck \(test_failures.py:\d+\)", errors[0])
    assert output[0].startswith("run: runs/r/") and output[1].startswith("summary: runs/r/")


def test_with_a_progress_bar_it_is_a_line_of_its_own():
    screen = Screen()
    bar, first, one = ProgressBar({"a/random": 20}, screen), FirstFailure(screen), search("a/random")
    bar.search_began(one, [])
    failed = records(math.nan, math.nan)
    bar.evaluated(one, failed)
    for record in failed:
        first.failed("a/random", record)
    bar.evaluated(one, records(3.0))
    bar._bar.refresh()
    bar.close()
    assert screen.getvalue().count("an evaluation failed") == 1
    assert "\ra/random: an evaluation failed: no luck\n" in screen.getvalue()
    assert "best 3.00, 2 failed" in screen.last


def test_the_log_of_a_run_counts_failures(run):
    write({"t": scripted("some")})
    _, errors, _ = run(quiet=False)
    assert "t/random: best 2.00 of 6 evaluations, 4 failed" in errors


def test_time_left_is_reckoned_without_failures():
    now = [100.0]
    log = type("Log", (Screen,), {"isatty": lambda self: False})()
    bar, one = ProgressBar({"a/random": 100}, log, pause=0, clock=lambda: now[0]), search("a/random", 100)
    bar.search_began(one, [])
    for seconds, score in [(1, math.nan), (1, math.nan), (10, 1.0), (1, math.nan), (20, 1.0)]:
        now[0] += seconds
        bar.evaluated(one, records(score))
    lefts = re.findall(r"(\S+) left", log.getvalue())
    assert lefts == ["?", "?", "16:10", "16:00", "23:45"]  # 97 and 96 of 10 s each, 95 of 15 s


def test_a_search_without_a_success(run):
    """The run is finished, with summary and report, and says that it found nothing; so it does when resumed."""
    write({"t": scripted("mostly"), "u": scripted("good")})
    code, errors, output = run()
    assert code == 1 and summary()["targets"]["t"]["agents"]["random"]["failed"] == 6
    assert os.path.isfile("runs/r/latest/report.html") and output[-1].startswith("report:")
    assert len(errors) == 2 and errors[1].startswith(
        "catchmark: t/random: none of 6 evaluations succeeded, most often for: ValueError: no luck ("
    )
    assert run("--resume", "runs/r/latest", "--trust", __name__)[:2] == (1, errors[1:])


def test_a_study_of_supernets_whose_truth_fails(run):
    """It is not asked for ever: a truth that is trained would take years to fail 200 times for each architecture."""
    study = {
        "space": "NASBench201",
        "truth": scripted("never"),
        "data": {"class_path": "ThreePartsDataModule", "init_args": {"data": DIGITS, "evaluation_images": 64}},
        "methods": {"spos": {"sampler": "UniformSampler"}},
        "settings": {"epochs": 1},
        "build": {"channels": 2, "cells": 1},
        "measured": 3,
    }
    with open("s.yaml", "w") as file:
        file.write(dump_yaml({"class_path": "SupernetStudy", "init_args": study}))
    code, errors, _ = run("s.yaml")
    assert code == 1 and Scripted.made == 10 and len(errors) == 2, errors
    assert errors[0].startswith("stand_alone: an evaluation failed: ValueError: no luck")
    assert errors[1].startswith("catchmark: truth: 10 evaluations in a row failed, the last one with: ValueError: no")
    # An accelerator that is not there is noticed before the truth is paid for.
    study["trainer"] = {"accelerator": "tpu"}
    with open("s.yaml", "w") as file:
        file.write(dump_yaml({"class_path": "SupernetStudy", "init_args": study}))
    code, errors, _ = run("s.yaml")
    assert code == 1 and Scripted.made == 10 and len(errors) == 1
    assert errors[0].startswith("catchmark: trainer: {accelerator: tpu} can't be used here: ")


# ---- what no architecture has a part in ----------------------------------------------------------------------------


class Images(Dataset):
    """Digits of noise; one lies in a file that is not there."""

    def __init__(self, absent=None):
        self.absent = absent

    def __len__(self):
        return 16

    def __getitem__(self, index):
        if index == self.absent:
            open(f"absent{index}.png")
        return torch.rand(1, 8, 8), index % 10


class Absent(LightningDataModule):
    """Data that are missing something.

    Args:
        where: what needs it.
        workers: of the loader.
    """

    num_classes, in_channels = 10, 1

    def __init__(self, where: str, workers: int = 0):
        super().__init__()
        self.where, self.workers = where, workers

    def _need(self, where):
        if where == self.where:
            open("absent.json")

    def prepare_data(self):
        self._need("prepare_data")

    def setup(self, stage=None):
        self._need("setup")

    def train_dataloader(self):
        self._need("train_dataloader")
        absent = 3 if self.where == "an image" else None
        return DataLoader(Images(absent), batch_size=8, num_workers=self.workers)

    def val_dataloader(self):
        return DataLoader(Images(), batch_size=8)


def trained(data=DIGITS, trainer=None, **arguments):
    init_args = {"data": data, "build": {"channels": 2, "cells": 1}, "epochs": 1, "threads": 1, **arguments}
    return {
        "class_path": "TrainedTask",
        "init_args": {**init_args, "trainer": {"accelerator": "cpu"} if trainer is None else trainer},
    }


ABSENT = "cuda" if not torch.cuda.is_available() else "mps" if sys.platform == "linux" else "tpu"


@pytest.mark.parametrize(
    "trainer",
    [
        {"accelerator": ABSENT},
        {"accelerator": "mps" if sys.platform == "linux" else "hpu"},
        {"accelerator": "tpu"},
        {"accelerator": "warp"},
        {"accelerator": "cpu", "devices": 0},
        {"accelerator": "cpu", "precision": "7-mixed"},
        {"accelerator": "cpu", "strategy": "no_such_strategy"},
    ],
    ids=str,
)
def test_a_trainer_that_can_not_be_here_is_refused_before_any_search(run, trainer):
    write({"t": scripted("good"), "u": trained(trainer=trainer)})
    code, errors, _ = run()
    assert code == 1 and len(errors) == 1 and Scripted.made == 0
    key, value = list(trainer.items())[-1]
    assert errors[0].startswith("catchmark: targets.u: trainer: {accelerator: ") and f"{key}: {value}" in errors[0]


@pytest.mark.parametrize("where", ["prepare_data", "setup", "train_dataloader", "an image", "an image, in a worker"])
def test_a_file_of_the_data_that_is_missing_stops_the_run(run, where):
    init_args = {"where": where.partition(",")[0], "workers": 1 if "worker" in where else 0}
    write({"t": trained({"class_path": f"{HERE}.Absent", "init_args": init_args})})
    code, errors, _ = run()
    assert code == 1 and len(errors) == 1 and journal_of() == []
    assert errors[0].startswith("catchmark: data: FileNotFoundError: [Errno 2] No such file or directory: 'absent")


@pytest.mark.parametrize(
    "task, words",
    [
        (
            trained(module={"class_path": "ClassificationModule", "init_args": {"warmup_epochs": 3}}),
            "training: ScheduleError: warmup_epochs is 3, the whole run has 1 epochs",
        ),
        (trained(score="val_acuracy"), "score 'val_acuracy' is not logged; did you mean 'val_accuracy'?"),
    ],
    ids=["a warm-up longer than the training", "a score that nothing logs"],
)
def test_a_training_that_no_architecture_can_pass_stops_the_run(run, task, words):
    write({"t": task})
    code, errors, _ = run()
    assert code == 1 and len(errors) == 1 and words in errors[0] and journal_of() == []


# ---- cost ----------------------------------------------------------------------------------------------------------


def record_a_run(monkeypatch, evaluations):
    monkeypatch.setitem(SCRIPTS, "recorded", evaluations)
    write({"t": scripted("recorded")}, budget=len(evaluations))
    return main(["run", "r.yaml", "--quiet"])


def test_failures_count_in_no_estimate_of_cost(monkeypatch, capsys):
    quick, slow = Evaluation.failed("no accelerator", 0.004), Evaluation(1.0, cost_seconds=600.0)
    assert record_a_run(monkeypatch, [quick, quick]) == 1
    capsys.readouterr()
    assert main(["run", "r.yaml", "--dry-run"]) == 0
    assert "cost: what is unknown until an evaluation was made" in capsys.readouterr().out
    Scripted.made = 0
    assert record_a_run(monkeypatch, [quick, slow, quick, slow]) == 0
    capsys.readouterr()
    assert main(["run", "r.yaml", "--dry-run"]) == 0
    assert "# t/random: 4 evaluations, cost: 40 min 0 s (the mean of 2 measured" in capsys.readouterr().out


def test_look_ups_that_fail_count_in_no_estimate_either(capsys):
    write({"t": scripted("some", instant=True)})
    assert main(["run", "r.yaml", "--dry-run"]) == 0  # an exception in the task is no end of the estimate
    assert "# t/random: 6 evaluations, cost: 6 s (said of look-ups)" in capsys.readouterr().out


# ---- numbers that are none -----------------------------------------------------------------------------------------


def test_scores_and_costs_that_can_not_be_compared_have_failed(run):
    write({"t": scripted("infinite")}, budget=7)
    assert run()[0] == 0
    evaluations = [record.evaluation for record in journal_of()]
    assert [each.status for each in evaluations] == ["ok", "failed", "failed", "ok", "failed", "failed", "failed"]
    assert [each.reason for each in evaluations] == [
        "",
        "the score is inf",
        "the score is nan",
        "left out: loss is inf, huge is 1e+308",
        "the cost is inf seconds",
        "the cost is -1 seconds",
        "the cost is nan seconds",
    ]
    assert repr(evaluations[3].metrics) == repr({"loss": math.nan, "accuracy": 3.0, "huge": math.nan})
    assert evaluations[3].history == [{"a": 1.0}]
    assert all(math.isfinite(each.cost_seconds) for each in evaluations)
    found = summary()["targets"]["t"]["agents"]["random"]
    assert found["best_score_mean"] == 2.0 and found["best"]["metrics"] == {"loss": None, "accuracy": 3.0, "huge": None}


def test_scores_that_would_overflow_a_sum_have_failed(run):
    write({"t": scripted("large")})
    code, errors, _ = run()
    assert code == 0 and errors[-1] == "failed: 2 of 6 evaluations, the report says why"
    assert "the score is 1e+308, more than the 1e+18 that can be added up" in errors[0]


@pytest.mark.parametrize("agent", ["CATCHer", "Reinforce", "RegularizedEvolution"])
def test_a_journal_of_an_earlier_version_with_such_numbers_ends_well(run, monkeypatch, agent):
    """It kept them: a run that could not write its summary then can now."""
    given = [Evaluation(1e308, {"loss": math.inf, "a": math.nan, "b": 1.0}, 1e308), Evaluation(1e308, {}, 1e308), 2.0]
    monkeypatch.setitem(SCRIPTS, "old", [*given, stop])
    write({"t": scripted("old")}, trials=2, agents={"random": agent})
    with monkeypatch.context() as earlier:
        earlier.setattr("search.executors.inline._checked", lambda task, evaluation: evaluation)
        assert run()[0] == 130
    monkeypatch.setitem(SCRIPTS, "old", [2.0])
    assert run("--resume", "runs/r/latest", "--trust", __name__)[0] == 0
    assert repr(journal_of()[0].evaluation.metrics) == repr({"loss": math.nan, "a": math.nan, "b": 1.0})
    assert summary()["targets"]["t"]["agents"]["random"]["best"]["metrics"] == {"loss": None, "a": None, "b": 1.0}
    assert main(["report", "runs/r/latest", "--trust", __name__]) == 0


def table_with(values):
    archs = np.array(list(SPACE.enumerate()), dtype=np.int8)
    column = archs.sum(1).astype(float)
    column[: len(values)] = values
    write_table("mine.npz", archs, {"mine_val_acc": column, "mine_test_acc": column})
    column = {"dataset": "mine", "metric": "acc", "epochs": None}
    also = [column | {"split": "test"}]
    return {"class_path": "TableTask", "init_args": {"table": "mine.npz", "split": "val", "also": also, **column}}


def test_an_infinite_value_of_a_table_was_not_measured(run):
    write({"t": table_with([math.inf, -math.inf, 3e38])})
    assert run()[0] == 0
    found = summary()["targets"]["t"]["agents"]["random"]
    assert found["best_possible"] == 24.0 and math.isfinite(found["regret"])
    from search.recipes.recipe import load_recipe

    study, _ = load_recipe("r.yaml")
    assert isinstance(study, Experiment)
    assert study.targets["t"].all_scores()[:4].isnan().tolist() == [True, True, True, False]
    evaluation = evaluate(study.targets["t"], (0,) * 6)
    assert evaluation.status == "failed" and "mine.npz has no mine_val_acc of" in evaluation.reason


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e39", "-1e39", "1e400", "Infinity"])
def test_a_list_with_a_number_that_is_infinite_is_refused_with_its_line(capsys, cell):
    lines = ["arch,mine_val_acc_12ep", f"{SPACE.format((0,) * 6)},1.5", f"{SPACE.format((1,) * 6)},{cell}"]
    with open("s.csv", "w") as file:
        file.write("\n".join(lines))
    assert main(["data", "nasbench201", "s.csv", "--out", "t.npz"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"s.csv, line 3: '{cell}' is no number that a table can hold" in line
    assert not os.path.exists("t.npz")
