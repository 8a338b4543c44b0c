"""Studies of supernets over several processes: as in one process, and whatever happens on the way."""

import json
import os
import re
import signal
from dataclasses import asdict

import pytest
import torch
import yaml

from search.deploy.shared_start import digest_of
from search.distributed.joint_fit import joint_calls_of
from search.distributed.shared_files import see_weights
from search.errors import CatchmarkError
from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.studies.supernet_job import Outcome, Stretch, checkpoint_of, read_outcome, stretch_of
from search.training.launch import Launch
from search.training.tensor_files import load_tensors
from search.training.trainer_arguments import arguments_here
from tests.search.distributed.ranks import Job
from tests.search.distributed.recipes import STUDY
from tests.search.distributed.spaces import notes
from tests.search.studies.test_supernet_study import timeless

METHODS = ("spos", "landmarks")


@pytest.fixture
def job(server, tmp_path):
    return Job(server, tmp_path, STUDY)


def result(job):
    """What a job left: its summary, the weights of each method, and what was evaluated as what."""
    (folder,) = job.run_folders
    summary = json.loads((folder / "summary.json").read_text())
    weights = {
        name: torch.load(checkpoint_of(folder, f"{name}-0"), weights_only=True)["state_dict"] for name in METHODS
    }
    return timeless(summary), weights, job.records()


@pytest.fixture(scope="module")
def alone(server, tmp_path_factory):
    """The study in one process."""
    job = Job(server, tmp_path_factory.mktemp("alone"), STUDY)
    assert job.run(ranks=1) == [0], job.said()
    return result(job)


@pytest.fixture(scope="module")
def together(server, tmp_path_factory):
    """The study on two ranks, never stopped."""
    job = Job(server, tmp_path_factory.mktemp("together"), STUDY)
    assert job.run(WANDB_MODE="offline") == [0, 0], job.said()
    return job, *result(job)


def assert_same_weights(ours, theirs, tolerance=0.0):
    assert ours.keys() == theirs.keys() == set(METHODS)
    for name in METHODS:
        assert ours[name].keys() == theirs[name].keys()
        for key, value in ours[name].items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, theirs[name][key], rtol=0, atol=tolerance)


def test_two_ranks_study_as_one_process_with_the_joint_batch(together, alone):
    job, summary, weights, records = together
    assert job.said()[1] == "" and "nothing to do" not in job.said()[0]
    assert_same_weights(weights, alone[1], 1e-4)
    moved = [(weights["spos"][key] - weights["landmarks"][key]).abs().max() for key in weights["spos"]]
    assert max(moved) > 1e-2, "landmarks weigh in"
    stages = {}
    for ours, theirs in zip(records, alone[2], strict=True):
        assert (ours.stage, ours.trial, ours.architecture) == (theirs.stage, theirs.trial, theirs.architecture)
        assert ours.evaluation.score == pytest.approx(theirs.evaluation.score, abs=1e-4)
        assert ours.evaluation.metrics.get("loss") == pytest.approx(theirs.evaluation.metrics.get("loss"), abs=1e-4)
        stages[ours.stage] = stages.get(ours.stage, 0) + 1
    assert stages.pop("landmark random") == 4
    # Measured twice by both methods, found by both, and added behind two of three iterations.
    assert stages == {
        "measured": 4,
        "measured after epoch 2": 8,
        "measured after epoch 4": 8,
        "found": 4,
        "added landmark": 2,
    }
    assert [summary["methods"][name]["found"] for name in METHODS] == [
        alone[0]["methods"][name]["found"] for name in METHODS
    ]
    (folder,) = job.run_folders
    assert len(list(folder.glob("wandb/offline-run-*"))) == len(METHODS), "one W&B run a training, of rank 0"


def test_every_rank_of_a_full_training_begins_with_the_weights_that_a_supernet_shared(together, monkeypatch):
    job, trust = together[0], ("tests.search.distributed", "tests.search.studies.test_supernet_study")
    trained = {}
    for ranks, batch_size in ((2, 32), (1, 64)):
        task = {
            "class_path": "TrainedTask",
            "init_args": {
                "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": batch_size}},
                "epochs": 1,
                "build": {"channels": 2, "cells": 1},
                "threads": 1,
                "trainer": {"accelerator": "cpu", "strategy": "ddp", "limit_train_batches": 4},
            },
        }
        (job.folder / "task.yaml").write_text(dump_yaml(task))
        words = ["--from-supernet", "spos", "--task", "task.yaml", "--out", f"on-{ranks}"]
        words += [word for each in trust for word in ("--trust", each)]
        assert job.run(ranks=ranks, command=("train", "runs/recipe/latest", *words)) == [0] * ranks, job.said()
        folder = job.folder / f"on-{ranks}"
        trained[ranks] = torch.load(folder / "weights.pt", weights_only=True)
        start = json.loads((folder / "network.json").read_text())["start"]
        assert start["method"] == "spos" and not (folder / "shared.pt").exists()
    assert trained[2].keys() == trained[1].keys()
    for key, value in trained[2].items():
        torch.testing.assert_close(value, trained[1][key], rtol=0, atol=1e-4)
    # Others' weights lie where a rank looks for the shared ones, or none do.
    monkeypatch.setattr("search.distributed.shared_files._SHARED_SECONDS", 0.0)
    for name, found in (("weights.pt", "others"), ("shared.pt", "none")):
        path = folder / name
        with pytest.raises(CatchmarkError, match=rf"^rank 1 .* does not see the weights .*{name} .* are {found}: keep"):
            see_weights(path, start["digest"], lambda path=path: digest_of(load_tensors(path)), Launch(1, 2))


def test_a_rank_that_is_killed_ends_the_study_and_the_study_goes_on(job, together):
    children = job.start(HOLD="1")
    job.until_held(children)  # amid the first epoch with a landmark that was added
    os.kill(children[1], signal.SIGKILL)
    assert [job.server.wait(child) for child in children] == [1, -9], job.said()
    assert re.search(
        r"catchmark: rank 1 \(.*, process \d+\) is gone; what was evaluated is kept: start again with --resume\n\Z",
        job.said()[0],
    )
    assert "Traceback" not in job.said()[0]
    (folder,) = job.run_folders
    assert 2 <= read_outcome(checkpoint_of(folder, "landmarks-0")).epochs < 4
    assert not (folder / "summary.json").exists()
    assert job.run(SLURM_RESTART_COUNT="1") == [0, 0], job.said()
    summary, weights, records = result(job)
    assert_same_weights(weights, together[2])
    assert summary == together[1]
    assert [(r.stage, r.architecture, r.evaluation.score) for r in records] == [
        (r.stage, r.architecture, r.evaluation.score) for r in together[3]
    ]


def test_a_training_that_fails_on_one_rank_ends_all_with_its_reason(job):
    assert job.run(FAIL_IN="1") == [1, 1], job.said()
    assert re.search(
        r"catchmark: RankFailed: IndexError: a path that leads nowhere \(rank 1\).*\(traceback in (\S+)\)",
        job.said()[0],
    )
    (folder,) = job.run_folders
    account = (folder / "error.txt").read_text()
    assert "spaces.py" in account and 'raise IndexError("a path that leads nowhere")' in account
    assert job.said()[1] == ""


def test_what_is_trained_as_ground_truth_is_trained_together(server, tmp_path):
    recipe = yaml.safe_load(STUDY)
    arguments = recipe["init_args"]
    arguments |= {"space": "tests.search.distributed.spaces.SmoothNorms", "measured": 2, "measurements": 1}
    arguments["settings"] = {"epochs": 2}
    method = arguments["methods"]["landmarks"] | {"landmarks_from": {"count": 2, "iterations": 2, "added": 1}}
    arguments["methods"] = {"landmarks": method | {"found": 1}}
    arguments["truth"] = {
        "class_path": "TrainedTask",
        "init_args": {
            "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 32}},
            "epochs": 1,
            "score": "val_loss",  # as good as any, and never a tie
            "build": {"channels": 4, "cells": 1},
            "trainer": {"accelerator": "cpu", "strategy": "ddp", "limit_train_batches": 2},
        },
    }
    job = Job(server, tmp_path / "ranks", yaml.safe_dump(recipe))
    assert job.run() == [0, 0], job.said()
    one = Job(server, tmp_path / "one", yaml.safe_dump(recipe))
    assert one.run("--truth.data.batch_size", "64", ranks=1) == [0], one.said()
    ours, theirs = ([r for r in each.records() if " after " not in r.stage] for each in (job, one))
    stages = ["added landmark", "found", "landmark random", "landmark random", "measured", "measured"]
    assert sorted(r.stage for r in ours) == stages
    assert sorted(tuple(each[1]) for each in notes(job.notes, 1)) == sorted(r.architecture for r in ours)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.architecture == other.architecture
        assert mine.evaluation.score == pytest.approx(other.evaluation.score, abs=2e-4)


# ---- what is refused, without any process ----------------------------------------------------------------------------


def study_of(tmp_path, **overrides):
    (tmp_path / "recipe.yaml").write_text(STUDY)
    return load_recipe(tmp_path / "recipe.yaml", {key.replace("__", "."): value for key, value in overrides.items()})[0]


@pytest.mark.parametrize(
    ("overrides", "ranks", "message"),
    [
        ({"workers": "2"}, 2, "executor: 2 processes were started .* take the executor and workers out of the recipe"),
        ({"data__data__batch_size": "63"}, 2, "batch_size is 63, which 2 ranks can't share evenly"),
        ({"trainer__strategy": "ddp_fork"}, 2, "^trainer.strategy 'ddp_fork' starts processes of its own.*ddp"),
        ({"trainer__devices": "3"}, 4, "^trainer has devices: 3, but 4 processes were started on each of 1 nodes"),
    ],
)
def test_what_does_not_fit_the_ranks_is_refused(overrides, ranks, message, tmp_path):
    with pytest.raises(CatchmarkError, match=message) as error:
        joint_calls_of(study_of(tmp_path, **overrides), Launch(ranks=ranks))
    assert "\n" not in str(error.value)


def test_without_a_strategy_rank_0_trains_alone(tmp_path):
    study = study_of(tmp_path, trainer__strategy="auto")
    asked = []
    calls = joint_calls_of(study, Launch(ranks=2), lambda *what: asked.append(what))
    assert calls.nothing == "neither the study nor its truth has trainer: {strategy: ddp}"
    assert calls.study.training.train_stretch is study.training.train_stretch and calls.study.truth is study.truth
    (environment,) = arguments_here(study.training.trainer, launch=Launch(ranks=2))["plugins"]
    assert environment.world_size() == 1
    assert joint_calls_of(study_of(tmp_path), Launch(ranks=2), lambda *what: asked.append(what)).nothing == ""
    assert not asked


def test_one_process_needs_no_wrapper_and_several_need_a_launcher(tmp_path):
    study = study_of(tmp_path)
    study.check_trainers()
    assert arguments_here(study.training.trainer)["strategy"] == "auto"
    with pytest.raises(CatchmarkError, match=r"^trainer has devices: 2 and num_nodes: 1.*torchrun --nnodes 1"):
        study_of(tmp_path, trainer__devices="2").check_trainers()
    study_of(tmp_path, trainer__devices="2", trainer__strategy="ddp_fork").check_trainers()


def test_what_is_to_be_trained_survives_its_journey(together, tmp_path):
    job, *_ = together
    (folder,) = job.run_folders
    study = load_recipe(folder / "config.yaml")[0]
    landmarks = [(record.architecture, record.evaluation.score) for record in job.records()[:4]]
    job = study._job("landmarks", 0, {study.landmark_key("landmarks"): landmarks, "measured": []})
    stretch = Stretch(job, 3, outcome=read_outcome(checkpoint_of(folder, "landmarks-0")))
    assert stretch.outcome.added and stretch.outcome.rounds
    assert stretch.job.landmarks == landmarks and stretch_of(json.loads(json.dumps(asdict(stretch)))) == stretch


def test_a_rank_that_does_not_see_the_checkpoint_says_so(together, tmp_path, monkeypatch):
    job, *_ = together
    (folder,) = job.run_folders
    study = load_recipe(folder / "config.yaml")[0]
    calls = joint_calls_of(study, Launch(rank=1, ranks=2))
    done = asdict(Stretch(study._job("spos", 0, {"measured": []}), 5, "spos-0", Outcome(4)))
    assert callable(calls.find({"train": done, "folder": str(folder)}))
    monkeypatch.setattr("search.distributed.shared_files._SHARED_SECONDS", 0.0)
    with pytest.raises(
        CatchmarkError, match=r"^rank 1 \(.*\) does not see the checkpoint .*; there it is absent: keep"
    ):
        calls.find({"train": done, "folder": str(tmp_path)})
    with pytest.raises(CatchmarkError, match=r"goes on from, 3 epochs on; there it is 4 epochs on: keep the run's"):
        calls.find({"train": done | {"outcome": asdict(Outcome(3))}, "folder": str(folder)})
