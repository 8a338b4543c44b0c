"""From a run to a trained network: the right one is trained, whatever happens on the way, and it loads again."""

import itertools
import json
import os
import signal
import sys
from functools import partial

import numpy as np
import pytest
import torch

from datamodules.digits import DigitsDataModule
from search.cli import main
from search.commands.run import run_recipe
from search.deploy import load_network
from search.deploy.choice import Request, choose
from search.deploy.training import train
from search.errors import CatchmarkError
from search.evaluation import Proposal
from search.listeners.progress import ProgressBar
from search.loop.search import Listener
from search.recipes.build import description_of
from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from search.spaces.head import Head
from search.spaces.nasbench201 import NASBench201
from search.tables.table import write_table
from search.tasks.trained import TrainedTask
from search.training.tensor_files import load_tensors, save_tensors
from tests.forks import COMMAND_LINE
from tests.search.listeners.wandb.test_searches import logged

DATA = {"class_path": "DigitsDataModule", "init_args": {"batch_size": 150, "padding": 2}}
BUILD = {"channels": 4, "cells": 1}
ARGUMENTS = {"data": DATA, "epochs": 2, "build": BUILD, "threads": 1, "trainer": {"accelerator": "cpu"}}
CONVOLUTIONS = "|nor_conv_1x1~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
STEPWISE = """
import os
import signal

import torch
from torch import nn

from lightning_modules.classification import ClassificationModule


class Stepwise(ClassificationModule):
    def configure_models(self, network):
        super().configure_models(nn.Sequential(network, nn.Dropout(0.3)))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        steps = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": steps, "interval": "epoch"}}

    def on_train_batch_start(self, batch, batch_index):
        if batch_index == 3 and os.environ.get("END_OF_STEPWISE") == f"stop in {self.trainer.current_epoch}":
            raise KeyboardInterrupt
        if batch_index == 3 and os.environ.get("END_OF_STEPWISE") == f"kill in {self.trainer.current_epoch}":
            os.kill(os.getpid(), signal.SIGKILL)
"""


def training(name="TrainedTask", **arguments):
    return {"class_path": name, "init_args": ARGUMENTS | arguments}


def write_recipe(path, **content):
    recipe = {"space": "NASBench201", "agents": {"random": "RandomSearch", "late": "RandomSearch"}, "budget": 2}
    path.write_text(dump_yaml(recipe | {"targets": {"digits": training()}} | content))
    return path


def planned_run(folder, **content):
    """A run of which nothing but the recipe is there."""
    folder.mkdir()
    write_recipe(folder / "recipe.yaml", **content)
    (folder / "config.yaml").write_text(load_recipe(folder / "recipe.yaml")[1])
    Journal(folder / "journal.sqlite").close()
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_wandb():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A search of two evaluations by each of two agents, finished."""
    place = tmp_path_factory.mktemp("found")
    run_recipe(write_recipe(place / "toy.yaml"), {}, runs=place / "runs", quiet=True)
    return place / "runs" / "toy" / "latest"


@pytest.fixture(scope="module")
def trained(run):
    """The folder of its best architecture, trained."""
    assert main(["train", str(run), "--quiet", "--keep", "last"]) == 0
    return run / "trained" / "digits"


@pytest.fixture
def refused(capsys):
    """What a command that must fail says, in one line; and its exit code."""

    def call(*words):
        capsys.readouterr()
        code = main([*map(str, words)])
        line = capsys.readouterr().err
        assert code in (1, 2) and line.count("\n") == 1 and line.startswith("catchmark: "), line
        return code, line

    return call


def about(folder):
    return json.loads((folder / "network.json").read_text())


def weights(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def accuracy(network):
    """Percent of the validation images that it gets right, counted by hand."""
    with torch.no_grad():
        hits = [(network(x).argmax(1) == y).double() for x, y in DigitsDataModule().val_dataloader()]
    return 100 * float(torch.cat(hits).mean())


def epochs_of(folder):
    """What was logged, less the time."""
    entries = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


# ---- what is trained -----------------------------------------------------------------------------------------------


def test_the_best_architecture_is_trained_just_as_the_search_would(run, trained):
    summary = json.loads((run / "summary.json").read_text())["targets"]["digits"]["agents"]
    best = max((entry["best"] for entry in summary.values()), key=lambda best: best["score"])
    network = about(trained)
    assert network["architecture"] == best["architecture"] and network["search_score"] == best["score"]
    assert network["resolution"] == [8, 8] and network["num_classes"] == 10 and network["epochs"] == 2
    # The search trains without checkpoints and validates once; the scores must agree to the last bit all the same.
    data = DigitsDataModule(batch_size=150, padding=2)
    task = TrainedTask(NASBench201(), data, epochs=2, build=BUILD, threads=1, trainer={"accelerator": "cpu"})
    evaluation = task.evaluate_one(Proposal(tuple(best["choices"]), seed=0))
    assert network["metrics"].pop("val_accuracy") == evaluation.score
    assert network["metrics"].items() <= evaluation.metrics.items()
    assert network["parameters"] == evaluation.metrics["parameters"]
    assert [entry["epoch"] for entry in epochs_of(trained)] == [1, 2]
    page = (trained / "report.html").read_text()
    assert network["test"] is None and "The data have no test images" in page
    assert page.count("<svg") == 3 and "val_accuracy" in page and best["architecture"] in page
    assert not {path.name for path in trained.iterdir()} & {"last.ckpt", "weights.partial", "error.txt"}


def test_an_agent_an_architecture_a_seed(run):
    summary = json.loads((run / "summary.json").read_text())["targets"]["digits"]["agents"]
    for agent in ("random", "late"):
        choice = choose(Request(run, agent=agent))
        assert list(choice.architecture) == summary[agent]["best"]["choices"] and choice.agent == agent
    choice = choose(Request(run, architecture=CONVOLUTIONS, epochs=7, seed=3))
    assert choice.space.format(choice.architecture) == CONVOLUTIONS and choice.search_score is None
    assert (choice.task.epochs, choice.seed, description_of(choice.task)["init_args"]["epochs"]) == (7, 3, 7)


def test_the_training_inside_of_a_reward_is_the_one_that_counts(tmp_path):
    weighed = {"class_path": "MeasuredLatencyTask", "init_args": {"task": training(), "target_milliseconds": 1.0}}
    run = planned_run(tmp_path / "run", targets={"digits": weighed})
    choice = choose(Request(run, architecture=CONVOLUTIONS, epochs=5))
    assert type(choice.task) is TrainedTask and choice.task.epochs == 5 and choice.task.build == BUILD


def test_a_table_needs_a_training_and_takes_one(tmp_path, refused, capsys):
    archs = np.array(list(itertools.product(range(5), repeat=6)))
    values = np.random.default_rng(0).uniform(0, 90, len(archs))
    path = write_table(tmp_path / "t.npz", archs, {"c_val_acc_12ep": values}, "nasbench201", compressed=False)
    column = {"table": str(path), "dataset": "c", "split": "val", "metric": "acc", "epochs": 12}
    target = {"class_path": "TableTask", "init_args": column}
    run = planned_run(tmp_path / "run", targets={"images": target}, agents={"random": "RandomSearch"})
    code, line = refused("train", run, "--architecture", CONVOLUTIONS)
    assert code == 2 and "TableTask" in line and "--task FILE.yaml" in line
    full = tmp_path / "full.yaml"
    full.write_text(dump_yaml(target))
    assert "TrainedTask is needed" in refused("train", run, "--architecture", CONVOLUTIONS, "--task", full)[1]
    full.write_text(dump_yaml(training(epoch=3)))
    assert "'epochs'" in refused("train", run, "--architecture", CONVOLUTIONS, "--task", full)[1]
    full.write_text(dump_yaml(training(epochs=1)))
    assert main(["train", str(run), "--architecture", CONVOLUTIONS, "--task", str(full), "--quiet"]) == 0
    assert f"weights: {run}/trained/images/weights.pt" in capsys.readouterr().out
    assert accuracy(load_network(run)) == pytest.approx(about(run / "trained" / "images")["metrics"]["val_accuracy"])


# ---- stopped and resumed -------------------------------------------------------------------------------------------


def test_stopped_and_killed_it_ends_with_the_same_weights(run, server, tmp_path, monkeypatch, capsys):
    """Amid augmentation, dropout, a worker process, and a learning rate that falls every epoch."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stepwise.py").write_text(STEPWISE)
    data = {"class_path": "DigitsDataModule", "init_args": DATA["init_args"] | {"num_workers": 1}}
    full = tmp_path / "full.yaml"
    full.write_text(dump_yaml(training(data=data, epochs=4, module="stepwise.Stepwise")))
    words = ["train", str(run), "--architecture", CONVOLUTIONS, "--task", str(full), "--quiet", "--out"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*words, str(whole)]) == 0

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("END_OF_STEPWISE", "stop in 1")
    assert main([*words, str(broken)]) == 130
    assert "the same 'catchmark train' again" in capsys.readouterr().err
    assert [entry["epoch"] for entry in epochs_of(broken)] == [1]
    monkeypatch.setenv("END_OF_STEPWISE", "kill in 3")
    process = server.run(COMMAND_LINE, [*words, broken], folder=tmp_path)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert [entry["epoch"] for entry in epochs_of(broken)] == [1, 2, 3]
    with pytest.raises(CatchmarkError, match="not finished"):
        load_network(broken)

    monkeypatch.delenv("END_OF_STEPWISE")
    assert main([*words, str(broken)]) == 0
    assert same(weights(broken), weights(whole))
    assert epochs_of(broken) == epochs_of(whole) and about(broken) == about(whole)
    (log,) = logged(broken)  # of three attempts
    assert log.points == json.loads((broken / "metrics.json").read_text())["epochs"] and len(log.points) == 4
    assert (log.run.run_group, log.run.job_type, log.exits[0].exit_code) == (run.parent.name, "train", 0)
    sys.modules.pop("stepwise", None)


FEW = {"accelerator": "cpu", "limit_train_batches": 2, "limit_val_batches": 1}
PEAK = f"""{STEPWISE}

class Peak(Stepwise):
    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("val_peak", -abs(self.current_epoch - 1.0))  # epochs 1 and 3 are equal, epoch 2 is the best
"""


def test_the_best_epoch_is_kept_whenever_the_training_is_stopped(run, tmp_path, monkeypatch, capsys):
    """The weights of the second of four epochs: those with which a training of the first two would go on."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "peaked.py").write_text(PEAK)
    full = tmp_path / "full.yaml"
    full.write_text(dump_yaml(training(epochs=4, module="peaked.Peak", score="val_peak", trainer=FEW)))
    request = Request(run, architecture=CONVOLUTIONS, task_file=full)
    path, second = tmp_path / "last.ckpt", {}
    for epoch in (2, 3):  # where the checkpoint is of the best epoch, and where it is of a later one
        with pytest.raises(KeyboardInterrupt):
            train(choose(request), path, StopIn(epoch), quiet=True)
        second = second or load_tensors(path)["state_dict"]
    kept = train(choose(request), path, quiet=True)
    assert kept.epoch == 2 and same(kept.weights, second)
    assert [entry["val_peak"] for entry in kept.history] == [-1, 0, -1, -2]
    words = ["train", str(run), "--architecture", CONVOLUTIONS, "--task", str(full), "--quiet"]
    assert main([*words, "--out", str(tmp_path / "best")]) == 0
    assert "epoch 2 of 4, the best: val_peak 0" in capsys.readouterr().out
    best = about(tmp_path / "best")
    assert same(weights(tmp_path / "best"), second) and best["metrics"]["val_peak"] == 0 and best["kept_epoch"] == 2
    assert "are those of epoch 2, the best by" in (tmp_path / "best" / "report.html").read_text()
    sys.modules.pop("peaked", None)


class StopIn(Listener):
    def __init__(self, epoch):
        self.epoch = epoch

    def trained(self, name, epochs, values, new, trial=0):
        if new and values["epoch"] == self.epoch:
            raise KeyboardInterrupt


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with(run, tmp_path):
    choice = choose(Request(run, architecture=CONVOLUTIONS, epochs=3, keep="last"))
    whole = train(choice, tmp_path / "whole.ckpt", quiet=True)
    path = tmp_path / "last.ckpt"
    with pytest.raises(KeyboardInterrupt):
        train(choice, path, StopIn(2), quiet=True)
    state = load_tensors(path)
    ours = state["callbacks"]
    state["callbacks"] = {"_Keeper": ours["Watch"] | ours["Show"]}  # its one callback did all of it
    save_tensors(path, state)
    again = train(choice, path, quiet=True)
    assert same(again.weights, whole.weights) and again.resolution == whole.resolution == [8, 8]
    timeless = [[{**epoch, "seconds": 0} for epoch in each.history] for each in (again, whole)]
    assert timeless[0] == timeless[1] and len(timeless[0]) == 3


def test_a_finished_training_is_not_repeated(run, trained, refused, capsys):
    before = (trained / "weights.pt").stat().st_mtime_ns
    assert main(["train", str(run), "--quiet", "--keep", "last"]) == 0
    out = capsys.readouterr().out
    assert "epoch 2 of 2, the last: val_accuracy" in out and "weights:" in out
    assert "test:    none, the data have no images that chose nothing" in out
    assert (trained / "weights.pt").stat().st_mtime_ns == before
    code, line = refused("train", run, "--seed", 5, "--epochs", 3)
    assert code == 2 and "differs in: seed, keep, task.epochs" in line


def test_a_training_that_diverges_leaves_no_weights(run, tmp_path, refused):
    full = tmp_path / "full.yaml"
    module = {"class_path": "ClassificationModule", "init_args": {"learning_rate": 1e30}}
    full.write_text(dump_yaml(training(module=module)))
    folder = tmp_path / "out"
    code, line = refused("train", run, "--task", full, "--out", folder, "--architecture", CONVOLUTIONS, "--quiet")
    assert code == 1 and "diverged" in line and "after epoch 1" in line
    assert not (folder / "weights.pt").exists() and about(folder)["metrics"] is None
    (folder / "last.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    code, line = refused("train", run, "--task", full, "--out", folder, "--architecture", CONVOLUTIONS, "--quiet")
    assert code == 2 and "last.ckpt is damaged" in line


# ---- loading -------------------------------------------------------------------------------------------------------


def test_the_loaded_network_is_the_trained_one(run, trained):
    state = torch.random.get_rng_state()
    network = load_network(str(run), target="digits")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network.training and all(each.device.type == "cpu" for each in network.parameters())
    built = NASBench201().build(tuple(about(trained)["choices"]), Head(10, 1), **BUILD).eval()
    built.load_state_dict({key.removeprefix("network."): value for key, value in weights(trained).items()})
    images = torch.randn(5, 1, 8, 8)
    assert torch.equal(network(images), built(images))
    assert accuracy(load_network(trained)) == pytest.approx(about(trained)["metrics"]["val_accuracy"], abs=1e-4)


def test_of_averaged_weights_the_average_is_loaded(run, tmp_path, monkeypatch, capsys):
    full = tmp_path / "full.yaml"
    module = {"class_path": "ClassificationModule", "init_args": {"ema_decay": 0.99}}
    full.write_text(dump_yaml(training(module=module)))
    folder = tmp_path / "out"
    monkeypatch.setattr("search.deploy.training.ProgressBar", partial(ProgressBar, pause=0.0))
    words = ["--task", str(full), "--out", str(folder), "--architecture", CONVOLUTIONS]
    assert main(["train", str(run), *words]) == 0
    lines = capsys.readouterr().err.splitlines()
    steps = 2 * len(DigitsDataModule(**DATA["init_args"]).train_dataloader())
    assert [line.split(" (")[0] for line in lines] == [f"digits: {k + 1} of {steps} batches" for k in range(steps)]
    assert "val_accuracy" in lines[-1] and "train_loss" in lines[-1]
    network, state = load_network(folder), weights(folder)
    assert accuracy(network) == pytest.approx(about(folder)["metrics"]["val_accuracy"], abs=1e-4)
    ours = network.state_dict()
    assert all(torch.equal(ours[key], state[f"average.network.{key}"]) for key in ours)
    assert not all(torch.equal(ours[key], state[f"network.{key}"]) for key in ours)


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["CATCHMARK_TEST_PROOF"],)


def test_weights_that_are_none_are_refused_and_never_executed(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("CATCHMARK_TEST_PROOF", str(tmp_path / "executed"))
    (tmp_path / "network.json").write_text((trained / "network.json").read_text())
    path, whole = tmp_path / "weights.pt", (trained / "weights.pt").read_bytes()

    def line():
        with pytest.raises(CatchmarkError) as error:
            load_network(tmp_path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        return str(error.value)

    torch.save({"network.stem": Malicious()}, path)
    assert "nothing in it was executed" in line() and not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)  # it would have done its work
    assert (tmp_path / "executed").is_dir()
    path.write_bytes(whole[: len(whole) // 2])
    assert "can't be used" in line()
    torch.save({"epochs": 3}, path)
    assert "not a state dict" in line()
    torch.save({key: value for key, value in weights(trained).items() if "classifier" not in key}, path)
    assert weights(tmp_path).keys() < weights(trained).keys() and "another network" in line()
    path.unlink()
    with pytest.raises(CatchmarkError, match="not finished"):
        load_network(tmp_path)


def test_a_description_that_is_damaged_is_refused(trained, tmp_path):
    path = tmp_path / "network.json"
    for text, words in [
        ("{", "is damaged"),
        ("{}", "is damaged"),
        ('{"format": 1}', "it lacks"),
        ('{"format": 99}', "use the version that wrote it"),
        (json.dumps(about(trained) | {"space": "os.system"}), "--trust os.system"),
        (json.dumps(about(trained) | {"architecture": "|none~0|"}), "can't be built"),
    ]:
        path.write_text(text)
        (tmp_path / "weights.pt").write_bytes((trained / "weights.pt").read_bytes())
        with pytest.raises(CatchmarkError, match=words) as error:
            load_network(tmp_path)
        assert str(path) in str(error.value)


# ---- refusals ------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_named_with_what_is(run, tmp_path, refused):
    for words, expected in [
        (("--target", "digit"), "there is no target 'digit'; did you mean 'digits'?"),
        (("--agent", "rendom"), "there is no agent 'rendom' in the run; did you mean 'random'?"),
        (("--architecture", "|nor_conv_3x4~0|+|none~0|none~1|+|none~0|none~1|none~2|"), "did you mean 'nor_conv_3x3'"),
        (("--epochs", "0"), "epochs is 0"),
        (("--task", tmp_path / "no.yaml"), "is not a file"),
    ]:
        code, line = refused("train", run, *words)
        assert code == 2 and expected in line
    assert "is not a run folder" in refused("train", tmp_path)[1]
    assert not (run / "trained" / "digit").exists()


def test_several_targets_and_nothing_found_yet(tmp_path, refused):
    run = planned_run(tmp_path / "run", targets={"one": training(), "two": training()})
    assert "name one with --target; targets: one, two" in refused("train", run)[1]
    assert "no evaluation of any agent has succeeded on 'two' yet" in refused("train", run, "--target", "two")[1]
    late = refused("train", run, "--target", "two", "--agent", "late")[1]
    assert "no evaluation of the agent 'late'" in late
    with pytest.raises(CatchmarkError, match=f"train it first: catchmark train {run}"):
        load_network(run)


def test_a_validation_that_would_miss_the_last_epoch_is_refused(run, tmp_path, refused):
    full = tmp_path / "full.yaml"
    full.write_text(dump_yaml(training(epochs=3, trainer={"accelerator": "cpu", "check_val_every_n_epoch": 2})))
    assert "choose --epochs that 2 divides" in refused("train", run, "--task", full, "--out", tmp_path / "out")[1]
    full.write_text(dump_yaml(training(score="val_acuracy")))
    code, line = refused("train", run, "--task", full, "--out", tmp_path / "other", "--quiet")
    assert code == 2 and "did you mean 'val_accuracy'?" in line


def test_a_study_without_targets_says_what_to_name(tmp_path, refused, capsys):
    study = {
        "class_path": "SupernetStudy",
        "init_args": {
            "space": "NASBench201",
            "truth": training(),
            "data": {"class_path": "ThreePartsDataModule", "init_args": {"data": DATA, "evaluation_images": 64}},
            "methods": {"spos": {"sampler": "UniformSampler"}},
            "build": BUILD,
        },
    }
    (tmp_path / "study.yaml").write_text(dump_yaml(study))
    (tmp_path / "config.yaml").write_text(load_recipe(tmp_path / "study.yaml")[1])
    code, line = refused("train", tmp_path)
    assert code == 2 and "--architecture STRING --task FILE.yaml" in line
    full = tmp_path / "full.yaml"
    full.write_text(dump_yaml(training(epochs=1)))
    assert main(["train", str(tmp_path), "--architecture", CONVOLUTIONS, "--task", str(full), "--quiet"]) == 0
    assert about(tmp_path / "trained" / "chosen")["architecture"] == CONVOLUTIONS
