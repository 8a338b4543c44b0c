"""``catchmark train`` over several processes: as in one process, and whatever happens on the way."""

import json
import os
import re
import signal

import pytest
import torch

from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from tests.search.distributed.ranks import Job

CONVOLUTIONS = "|nor_conv_1x1~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
RECIPE = {
    "space": "tests.search.distributed.spaces.SmoothNorms",
    "agents": {"random": "RandomSearch"},
    "budget": 2,
}


def task(batch_size=32, module="ClassificationModule", epochs=2, **trainer):
    data = {"class_path": "DigitsDataModule", "init_args": {"batch_size": batch_size, "padding": 1}}
    trainer = {"accelerator": "cpu", "strategy": "ddp", "limit_train_batches": 12} | trainer
    build = {"channels": 4, "cells": 1}
    arguments = {"data": data, "epochs": epochs, "build": build, "threads": 1, "module": module, "trainer": trainer}
    return {"class_path": "TrainedTask", "init_args": arguments}


class Training(Job):
    """A run of which nothing but the recipe is there, and a training of an architecture of it."""

    command = ("train", "run", "--architecture", CONVOLUTIONS, "--trust", "tests.search.distributed.spaces")

    def __init__(self, server, folder, **arguments):
        super().__init__(server, folder, dump_yaml(RECIPE | {"targets": {"digits": task(**arguments)}}))
        run = folder / "run"
        run.mkdir()
        (run / "config.yaml").write_text(load_recipe(folder / "recipe.yaml")[1])
        Journal(run / "journal.sqlite").close()
        self.trained = run / "trained" / "digits"

    def start(self, *words, **options):
        return super().start(*words, command=self.command, **options)

    def result(self):
        """The weights, and what was logged, less the time."""
        entries = json.loads((self.trained / "metrics.json").read_text())["epochs"]
        history = [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]
        return torch.load(self.trained / "weights.pt", weights_only=True), history


def test_two_ranks_train_as_one_process_with_the_joint_batch(server, tmp_path):
    two, one = Training(server, tmp_path / "two"), Training(server, tmp_path / "one", batch_size=64)
    assert two.run() == [0, 0], two.said()
    assert one.run(ranks=1) == [0], one.said()
    (weights, history), (expected, expected_history) = two.result(), one.result()
    assert weights.keys() == expected.keys() and len(history) == len(expected_history) == 2
    for key, value in weights.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-4)
    assert history[-1]["val_loss"] == pytest.approx(expected_history[-1]["val_loss"], abs=2e-4)
    assert "weights: run/trained/digits/weights.pt" in two.said()[0]
    assert two.said()[1] in ("", *re.findall(r"\A\[rank1\].*find_unused_parameters.*\n\Z", two.said()[1]))
    assert not (two.trained / "last.ckpt").exists()
    assert two.run() == [0, 0], two.said()  # there is nothing left to do


def test_a_rank_that_is_killed_ends_the_training_and_the_training_goes_on(server, tmp_path):
    whole, broken = (
        Training(server, tmp_path / k, module="tests.search.distributed.spaces.Jittered", epochs=3)
        for k in ("whole", "broken")
    )
    assert whole.run() == [0, 0], whole.said()
    children = broken.start(HOLD="1")
    broken.until_held(children)
    os.kill(children[1], signal.SIGKILL)
    assert [server.wait(child) for child in children] == [1, -9], broken.said()
    assert re.search(
        r"catchmark: rank 1 \(.*\) is gone; every whole epoch is kept: the same 'catchmark train' again goes on\n\Z",
        broken.said()[0],
    )
    assert not (broken.trained / "weights.pt").exists()
    assert len(json.loads((broken.trained / "metrics.json").read_text())["epochs"]) == 1
    assert broken.run() == [0, 0], broken.said()
    (weights, history), (expected, expected_history) = broken.result(), whole.result()
    assert history == expected_history
    assert weights.keys() == expected.keys() and all(torch.equal(weights[key], expected[key]) for key in weights)


@pytest.mark.parametrize(
    ("trainer", "codes", "message"),
    [
        ({"strategy": "auto", "limit_train_batches": 1}, [0, 0], "ranks: 1 of 2 processes have nothing to do, for the"),
        ({"devices": 3}, [2, 2], "catchmark: task: trainer has devices: 3, but 1 processes were started on each of 2"),
        ({"strategy": "ddp_fork"}, [2, 2], "trainer.strategy 'ddp_fork' starts processes of its own"),
    ],
)
def test_what_the_task_says_of_ranks_is_heeded(trainer, codes, message, server, tmp_path):
    job = Training(server, tmp_path / "job", **trainer)
    assert job.run("--epochs", "1") == codes, job.said()
    assert message in job.said()[0] and job.said()[1] == ""


def test_several_devices_need_a_launcher(server, tmp_path):
    job = Training(server, tmp_path / "job", devices=2)
    assert job.run(ranks=1) == [2], job.said()
    assert "torchrun --nnodes 1 --nproc-per-node 2 -m search.cli train ..." in job.said()[0]
    assert job.said()[0].count("\n") == 1


def test_ranks_that_were_told_different_things_do_not_start(server, tmp_path):
    job = Training(server, tmp_path / "job")
    children = job.start(per_rank=([], ["--epochs", "7"]))
    assert [server.wait(child) for child in children] == [2, 2]
    assert re.search(r"rank 1 \(.*\) has another recipe, or another version of catchmark", job.said()[0])


def test_every_network_of_the_front_is_trained_by_all_ranks(server, tmp_path):
    """A front of a table's networks, each trained by two ranks as by one process with the joint batch."""
    table = {"table": "nasbench201.npz", "dataset": "cifar10_valid", "split": "val", "metric": "acc", "epochs": 12}
    reward = {"quality": table, "latency_table": "nasbench201_latency.npz", "device": "fpga", "exponent": -0.07}
    target = {"class_path": "LatencyRewardTask", "init_args": reward}
    # Of the first two networks of seed 1 neither is both more accurate and faster.
    job = Job(server, tmp_path, dump_yaml(RECIPE | {"targets": {"fpga": target}, "seed": 1}))
    trust = ("--trust", "tests.search.distributed.spaces")
    assert job.run(ranks=1) == [0], job.said()
    losses = {}
    for ranks, batch_size in ((2, 32), (1, 64)):
        (tmp_path / "task.yaml").write_text(dump_yaml(task(batch_size=batch_size, epochs=1)))
        words = ("train", "runs/recipe/latest", "--front", "--task", "task.yaml", "--out", f"on-{ranks}", *trust)
        assert job.run(ranks=ranks, command=words) == [0] * ranks, job.said()
        networks = json.loads((tmp_path / f"on-{ranks}" / "front.json").read_text())["networks"]
        losses[ranks] = {each["architecture"]: each["metrics"]["val_loss"] for each in networks}
    assert losses[2].keys() == losses[1].keys() and len(losses[1]) == 2
    assert list(losses[2].values()) == pytest.approx(list(losses[1].values()), abs=2e-4)
