"""The three kinds of training, a child's, a supernet's and the final one, against numbers from before they were one."""

import json

import pytest
import yaml

from datamodules.digits import DigitsDataModule
from search.cli import main
from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.tasks.trained import TrainedTask

TOY = "|nor_conv_1x1~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
BUILD = {"channels": 4, "cells": 1}
DATA = {"class_path": "DigitsDataModule", "init_args": {"batch_size": 150, "padding": 2}}
SAMPLER = {"class_path": "UniformSampler", "init_args": {"population": 3, "tournament": 2, "budget": 6}}

CHILD = {}
HISTORY = []
SUPERNET = {}
FINAL = []


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
    return task.evaluate(space.parse(TOY), seed=3)


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
                "class_path": "HalvesDataModule",
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
