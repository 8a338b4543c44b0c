"""The three kinds of training, a child's, a supernet's and the final one, against numbers from before they were one."""

import json

import pytest
import yaml

from datamodules.digits import DigitsDataModule
from search.cli import main
from search.evaluation import Proposal
from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.tasks.trained import TrainedTask

TOY = "|nor_conv_1x1~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
BUILD = {"channels": 4, "cells": 1}
DATA = {"class_path": "DigitsDataModule", "init_args": {"batch_size": 150, "padding": 2}}
SAMPLER = {"class_path": "UniformSampler", "init_args": {"population": 3, "tournament": 2, "budget": 6}}

CHILD = {
    "score": 20.805368,
    "train_loss": 2.0872288,
    "val_loss": 2.1767564,
    "val_accuracy_top5": 74.496643,
    "parameters": 8686.0,
}
HISTORY = [
    {"train_loss": 2.2940562},
    {"train_loss": 2.1618216},
    {"train_loss": 2.0872288, "val_loss": 2.1767564, "val_accuracy": 20.805368, "val_accuracy_top5": 74.496643},
]
SUPERNET = {
    "history": {
        "landmarks": [
            {"loss": 2.3270626},
            {
                "loss": 2.309654,
                "landmark_penalty": 0.0041475296,
                "landmark_coefficient": 9.4010417,
                "s_kdt": -0.23076923,
            },
            {"loss": 2.3123672, "landmark_penalty": 0.0098084807, "landmark_coefficient": 10.0},
            {"loss": 2.3033903, "landmark_penalty": 0.014262468, "landmark_coefficient": 10.0, "s_kdt": -0.076923077},
        ],
        "plain": [
            {"loss": 2.3270626},
            {"loss": 2.3072972, "s_kdt": -0.57692308},
            {"loss": 2.3100848},
            {"loss": 2.3005919, "s_kdt": 0.0},
        ],
    },
    "scores": {
        "stand_alone": [1.0, 4.0, 4.0, 2.0, 2.0, 4.0, 4.0, 6.0, 3.0, 3.0],
        "landmarks": [
            10.9375,
            21.875,
            9.375,
            10.9375,
            14.0625,
            29.6875,
            10.9375,
            12.5,
            9.375,
            14.0625,
            15.625,
            15.625,
            3.0,
            5.0,
            18.75,
            10.9375,
        ],
        "plain": [
            20.3125,
            9.375,
            4.6875,
            14.0625,
            14.0625,
            17.1875,
            15.625,
            17.1875,
            6.25,
            14.0625,
            12.5,
            12.5,
            15.625,
            15.625,
        ],
    },
    "losses": {
        "landmarks": [
            2.302295,
            2.2974732,
            2.3231473,
            2.3355584,
            2.2756975,
            2.3678355,
            2.3130085,
            2.3006232,
            2.348592,
            2.3182738,
            2.3228972,
            2.3654933,
        ],
        "plain": [
            2.2938645,
            2.2987933,
            2.3782125,
            2.3292978,
            2.3233619,
            2.342088,
            2.3148315,
            2.2582762,
            2.3843729,
            2.3057988,
            2.3054764,
            2.3564706,
        ],
    },
}
FINAL = [
    {"epoch": 1, "val_loss": 2.303787, "val_accuracy": 11.577181, "val_accuracy_top5": 50.0, "train_loss": 2.2940562},
    {
        "epoch": 2,
        "val_loss": 2.2400208,
        "val_accuracy": 24.832214,
        "val_accuracy_top5": 69.966446,
        "train_loss": 2.1618216,
    },
    {
        "epoch": 3,
        "val_loss": 2.1767564,
        "val_accuracy": 20.805368,
        "val_accuracy_top5": 74.496643,
        "train_loss": 2.0872288,
    },
]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)


def close(values):
    """Equal but for the last digits, which are the processor's."""
    return pytest.approx(values, rel=1e-5, nan_ok=True)


def same(ours, golden):
    assert len(ours) == len(golden)
    for mine, theirs in zip(ours, golden, strict=True):
        assert mine == close(theirs)


def child():
    space = NASBench201()
    data = DigitsDataModule(batch_size=150, padding=2)
    task = TrainedTask(space, data, epochs=3, build=BUILD, threads=1, trainer={"accelerator": "cpu"})
    return task.evaluate_one(Proposal(space.parse(TOY), 3))


def test_a_child_scores_what_it_always_did():
    evaluation = child()
    assert {"score": evaluation.score} | evaluation.metrics == close(CHILD)
    same(evaluation.history, HISTORY)


def supernets(folder):
    """By method, what was logged epoch by epoch, and each record's score."""
    study = {
        "class_path": "SupernetStudy",
        "init_args": {
            "space": "NASBench201",
            "truth": "tests.search.studies.test_supernet_study.ConvolutionsTask",
            "data": {
                "class_path": "ThreePartsDataModule",
                "init_args": {
                    "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 64}},
                    "evaluation_images": 64,
                },
            },
            "settings": {"epochs": 4, "average": 0.9},
            "build": {"channels": 2, "cells": 1},
            "methods": {
                "plain": {"sampler": SAMPLER, "found": 2},
                "landmarks": {
                    "sampler": SAMPLER,
                    "found": 2,
                    "landmarks": {"warmup": 1, "schedule": "constant"},
                    "landmarks_from": {"count": 4, "iterations": 3, "added": 1},
                },
            },
            "measured": 6,
            "measurements": 2,
            "threads": 1,
            "trainer": {"accelerator": "cpu"},
        },
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    heard = {}

    class Ear:
        def trained(self, name, epochs, values, new, trial):
            pass

        def training_ended(self, name, trial, history):
            heard[name] = history

    study, _ = load_recipe(folder / "study.yaml")
    journal = Journal(folder / "journal.sqlite")
    study.run(folder, journal, [Ear()])
    scores = {
        name: [float(r.evaluation.score) for r in journal.records(name)] for name in ("stand_alone", *study.methods)
    }
    losses = {name: [r.evaluation.metrics.get("loss") for r in journal.records(name)] for name in study.methods}
    journal.close()
    return {
        "history": heard,
        "scores": scores,
        "losses": {name: [loss for loss in each if loss is not None] for name, each in losses.items()},
    }


def test_a_supernet_gives_what_it_always_did(tmp_path):
    ours = supernets(tmp_path)
    for name, history in SUPERNET["history"].items():
        same(ours["history"][name], history)
    for what in ("scores", "losses"):
        for name, values in SUPERNET[what].items():
            assert ours[what][name] == close(values)


def final(folder):
    """What was logged of a full training, less the time."""
    arguments = {"data": DATA, "epochs": 3, "build": BUILD, "threads": 1, "trainer": {"accelerator": "cpu"}}
    targets = {"digits": {"class_path": "TrainedTask", "init_args": arguments}}
    recipe = {"space": "NASBench201", "agents": {"random": "RandomSearch"}, "budget": 2, "targets": targets}
    (folder / "recipe.yaml").write_text(dump_yaml(recipe))
    run = folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text(load_recipe(folder / "recipe.yaml")[1])
    Journal(run / "journal.sqlite").close()
    assert main(["train", str(run), "--architecture", TOY, "--seed", "3", "--quiet"]) == 0
    entries = json.loads((run / "trained" / "digits" / "metrics.json").read_text())["epochs"]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


def test_a_final_training_logs_what_it_always_did(tmp_path):
    same(final(tmp_path), FINAL)
