"""What fusion has to beat is measured with it, once, and stands in summary and report."""

import json

import numpy as np
import pytest
import torch

from datamodules.digits import DigitsDataModule
from datamodules.pairs import PairsDataModule
from lightning_modules.fusion import FusionModule
from search.agents.random_search import RandomSearch
from search.randomness import derive_seed
from search.runs.journal import Journal
from search.spaces.fusion import FusionSpace
from search.spaces.modality import GivenFeatures
from search.spaces.nasbench201 import NASBench201
from search.studies.experiment import Experiment
from search.tasks.fusion import ALL, FIRST, LATE, SECOND, FusionTask
from search.training.trainer_arguments import TINY_TRAINER

SPACE = FusionSpace(GivenFeatures([2, 2]), GivenFeatures([2]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four classes, of which either modality tells two apart, by its last feature; the others are noise."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 240), ("val", 100), ("test", 80)):
        a, b = rng.integers(0, 2, (2, count))
        noise = rng.normal(size=(count, 2))
        arrays[f"first_{split}"] = np.concatenate([noise, np.stack([a, 1 - a], 1)], 1).astype(np.float32)
        arrays[f"second_{split}"] = np.stack([b, 1 - b], 1).astype(np.float32)
        arrays[f"y_{split}"] = a + 2 * b
    path = tmp_path_factory.mktemp("pairs") / "pairs.npz"
    np.savez(path, **arrays)
    return PairsDataModule(str(path), batch_size=40)


def make(space, data):
    def module(network):
        return FusionModule(network, learning_rate=0.1, test=True)

    trainer = {"accelerator": "cpu"}
    return FusionTask(space, data, module, 3, {"width": 8}, "val_best_accuracy", trainer=trainer, threads=1)


def test_one_modality_is_not_enough_and_both_are(data):
    task = make(SPACE, data)
    before = torch.get_rng_state()
    found = task.references(5)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(found) == [FIRST, SECOND, LATE, ALL]
    scores = {name: each.score for name, each in found.items()}
    print(scores)
    # Half of the classes: the first modality's other feature is noise, and would give a quarter.
    assert 40 < min(scores[FIRST], scores[SECOND]) and max(scores[FIRST], scores[SECOND]) < 70
    assert min(scores[LATE], scores[ALL]) > 90
    assert all(set(each.metrics) == {"test_accuracy"} for each in found.values())
    assert {name: each.score for name, each in task.references(5).items()} == scores


def test_another_space_has_no_references():
    task = FusionTask(NASBench201(), DigitsDataModule(), build={"channels": 2, "cells": 1}, trainer=dict(TINY_TRAINER))
    assert task.references(0) == {}


def test_references_are_measured_once_a_trial_and_stand_in_the_summary(data, tmp_path, monkeypatch):
    asked = []
    plain = FusionTask.references
    monkeypatch.setattr(FusionTask, "references", lambda self, seed: asked.append(seed) or plain(self, seed))
    experiment = Experiment(
        SPACE, {"both": lambda space: make(space, data)}, {"random": RandomSearch}, budget=1, trials=2, seed=4
    )
    journal = Journal(tmp_path / "journal.sqlite")
    summary = experiment.run(tmp_path, journal)
    assert asked == [derive_seed(4 + trial, "references", "both") for trial in range(2)]
    again = experiment.run(tmp_path, journal)
    journal.close()
    assert len(asked) == 2 and again["targets"]["both"]["references"] == summary["targets"]["both"]["references"]
    late = json.loads(json.dumps(summary))["targets"]["both"]["references"][LATE]
    wanted = [plain(experiment.targets["both"], seed)[LATE] for seed in asked]
    assert late["score"]["values"] == [each.score for each in wanted]
    assert late["score"]["mean"] == pytest.approx(sum(each.score for each in wanted) / 2)
    assert late["test_accuracy"]["values"] == [each.metrics["test_accuracy"] for each in wanted]
