"""The recipes that meta-train on sub-data-sets of images run as they are but smaller, on images made here.

The images themselves are too many to ship, so the test of all recipes skips these two where they are absent.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from datamodules.image_arrays import ImageArrays
from datamodules.npz import write_npz
from search.cli import main
from search.recipes.recipe import RECIPES

pytestmark = pytest.mark.data

SMALL = {
    "meta_training.pool.epochs": 1,
    "meta_training.pool.build": {"channels": 4, "cells": 1},
    "meta_training.pool.examples_per_class": 2,
    "meta_training.epochs": 2,
    "meta_training.networks": 6,
    "meta_training.trials": 1,
    "budget": 6,
    "trials": 2,
}


@pytest.mark.parametrize("name", ["subtasks", "subtasks_reduced"])
def test_recipe_runs_on_images_of_its_form(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATCHMARK_DATA", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    rng = np.random.default_rng(0)
    labels = np.arange(120).repeat(3)
    images = (labels[:, None, None, None] + rng.integers(0, 100, (360, 16, 16, 3))).astype(np.uint8)
    names = tuple(f"n{k:08d}" for k in range(120))
    write_npz(ImageArrays(images, labels, images, labels, names), Path("tiny_imagenet16_120.npz"))
    overrides = [word for key, value in SMALL.items() for word in (f"--{key}", json.dumps(value))]
    recipe = RECIPES / "catch" / f"{name}.yaml"
    assert main(["run", str(recipe), "--quiet", "--runs", str(tmp_path / "runs"), *overrides]) == 0
    summary = json.loads((tmp_path / "runs" / name / "latest" / "summary.json").read_text())
    assert sorted(summary["meta_training"]) == ["bayes_meta", "catch_meta"]
    for agent in summary["meta_training"].values():
        assert (agent["evaluations"], agent["failed"]) == (12, 0)
        assert all("classes (n000" in task and "of tiny_imagenet16_120 at" in task for task in agent["tasks"])
    assert list(summary["targets"]) == ["cifar10", "cifar100", "imagenet16_120"]
    for target in summary["targets"].values():
        agents = target["agents"]
        assert list(agents) == ["random", "evolution", "catch_scratch", "bayes_scratch", "catch_meta", "bayes_meta"]
        assert {agent["evaluations"] for agent in agents.values()} == {6}
