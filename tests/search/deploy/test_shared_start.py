"""A full training that begins with a supernet's weights begins where the supernet's path is, and says what is fresh."""

import json
from contextlib import closing

import pytest
import torch
from torch.nn import functional

from search.cli import main
from search.deploy.choice import Request, choose, study_of
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from search.studies.supernet_job import FOUND, checkpoint_of

DATA = {"class_path": "DigitsDataModule", "init_args": {"resolution": 8, "batch_size": 64}}
TRAINED = {
    "class_path": "TrainedTask",
    "init_args": {
        "data": DATA,
        "epochs": 1,
        "build": {"channels": 4, "cells": 1},
        "threads": 1,
        "trainer": {"limit_train_batches": 2, "limit_val_batches": 1, "accelerator": "cpu"},
    },
}
STUDY = {
    "class_path": "SupernetStudy",
    "init_args": {
        "space": "NASBench201",
        "truth": TRAINED,
        "data": {
            "class_path": "ThreePartsDataModule",
            "init_args": {"data": DATA, "images": 256, "evaluation_images": 32},
        },
        "build": {"channels": 4, "cells": 1},
        "settings": {"epochs": 2, "learning_rate": 0.05},
        "methods": {"spos": {"sampler": "UniformSampler", "found": 2}},
        "measured": 2,
        "threads": 1,
        "trainer": {"accelerator": "cpu"},
    },
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    place = tmp_path_factory.mktemp("shared")
    (place / "study.yaml").write_text(dump_yaml(STUDY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        assert main(["run", str(place / "study.yaml"), "--quiet", "--runs", str(place / "runs")]) == 0
        yield place / "runs" / "study" / "latest"


@pytest.fixture
def refused(capsys):
    def call(*words):
        capsys.readouterr()
        assert main([*map(str, words)]) != 0
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and line.startswith("catchmark: "), line
        return line

    return call


def test_before_any_step_the_network_is_the_path(studied):
    choice = choose(Request(studied, from_supernet=""))
    module = choice.task.start(choice.architecture, choice.seed, shared=choice.shared.state)
    study = study_of(Request(studied))
    supernet = study.training.load_module(checkpoint_of(studied, "spos-0"), "spos")
    images, labels = next(iter(choice.task.data.train_dataloader()))
    ours = module.training_step((images, labels), 0)
    theirs = functional.cross_entropy(supernet.supernet(images, supernet.sampler.path_of(choice.architecture)), labels)
    assert torch.equal(ours, theirs)
    fresh = choice.task.start(choice.architecture, choice.seed).training_step((images, labels), 0)
    assert not torch.equal(fresh, theirs)


def test_what_is_taken_is_the_best_that_the_method_found(studied):
    choice = choose(Request(studied, from_supernet="spos-0"))
    with closing(Journal(studied / "journal.sqlite", writable=False)) as journal:
        found = [each for each in journal.records("spos") if each.stage == FOUND]
    alone = [each.evaluation.metrics["stand_alone"] for each in found]
    assert len(found) == 2 and choice.architecture == found[alone.index(max(alone))].architecture
    assert (choice.agent, choice.shared.method, choice.shared.trial, choice.shared.epochs) == ("spos", "spos", 0, 2)


def test_the_command_says_what_is_fresh_and_keeps_it_in_the_folder(studied, capsys, refused):
    assert main(["train", str(studied), "--from-supernet", "spos", "--quiet"]) == 0
    folder = studied / "trained" / "chosen"
    about = json.loads((folder / "network.json").read_text())
    norms = [key for key in about["start"]["fresh"] if key.endswith("running_mean")]
    line = f"fresh: {3 * len(norms)} running statistics, {2 * len(norms)} scales and shifts of normalisation\n"
    assert norms and line in capsys.readouterr().out
    assert not (folder / "shared.pt").exists() and "shared weights of spos-0" in (folder / "report.html").read_text()
    assert main(["train", str(studied), "--from-supernet", "spos", "--quiet"]) == 0  # there is nothing left to do
    other = ("--architecture", about["architecture"], "--quiet")
    (studied / "task.yaml").write_text(dump_yaml(TRAINED))
    assert "it differs in: start" in refused("train", studied, *other, "--task", studied / "task.yaml")


def test_a_network_of_another_size_is_refused_with_its_shapes(studied, tmp_path, refused):
    larger = TRAINED | {"init_args": TRAINED["init_args"] | {"build": {"channels": 8, "cells": 1}}}
    (tmp_path / "task.yaml").write_text(dump_yaml(larger))
    line = refused("train", studied, "--from-supernet", "spos", "--task", tmp_path / "task.yaml")
    assert "they differ in: " in line and "([4, 1, 3, 3] shared, [8, 1, 3, 3] in the network)" in line
    assert not (tmp_path / "trained").exists()


def test_supernets_that_are_not_there_are_named(studied, tmp_path, refused):
    assert "no method 'spas'; did you mean 'spos'" in refused("train", studied, "--from-supernet", "spas")
    assert "trial 7, has found nothing yet" in refused("train", studied, "--from-supernet", "spos-7")
    recipe = {"space": "NASBench201", "targets": {"digits": TRAINED}, "agents": {"random": "RandomSearch"}, "budget": 1}
    (tmp_path / "search.yaml").write_text(dump_yaml(recipe))
    assert main(["run", str(tmp_path / "search.yaml"), "--quiet", "--runs", str(tmp_path)]) == 0
    search = tmp_path / "search" / "latest"
    assert "has no supernet; name the folder of one" in refused("train", search, "--from-supernet")
    assert main(["train", str(search), "--from-supernet", str(studied / "supernets" / "spos-0"), "--quiet"]) == 0
    assert json.loads((search / "trained/digits/network.json").read_text())["start"]["method"] == "spos"


def test_augmentation_of_a_full_training_is_an_option(studied, refused):
    request = Request(studied, from_supernet="", augmentation={"randaugment": 2, "mixup": 0.2})
    data = choose(request).task.data
    assert (data.augmentation.randaugment, data.augmentation.mixup) == (2, 0.2)
    _, targets = next(iter(data.train_dataloader()))
    assert targets.shape == (64, 10) and torch.allclose(targets.sum(1), torch.ones(64))
    words = ("--from-supernet", "spos", "--quiet", "--augment")
    assert "no 'mixap'; did you mean 'mixup'" in refused("train", studied, *words, "mixap=1")
    assert "magnitude is 40" in refused("train", studied, *words, "magnitude=40")
    assert "'two' is not a number" in refused("train", studied, *words, "randaugment=two")
