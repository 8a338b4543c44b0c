"""Processes that a Trainer starts by itself: they find each other, whatever the environment says, and end with it."""

import os
import signal
import socket

import pytest

from datamodules.digits import DigitsDataModule
from search.evaluation import Proposal
from search.spaces.nasbench201 import NASBench201
from search.tasks.trained import TrainedTask
from search.training.rank_environment import OwnProcesses
from tests.processes import alive, threads_of, wait_until
from tests.search.distributed.ranks import Job
from tests.search.distributed.spaces import notes

RECIPE = """
space: tests.search.distributed.spaces.Troubled
targets:
  digits:
    class_path: TrainedTask
    init_args:
      data: {class_path: DigitsDataModule, init_args: {resolution: 8}}
      module: tests.search.distributed.spaces.Late
      epochs: 1
      threads: 1
      trainer: {accelerator: cpu, devices: 2, strategy: ddp_fork}
agents: {in_order: tests.search.distributed.spaces.InOrder}
budget: 1
"""


def task(strategy, **trainer):
    arguments = {"accelerator": "cpu", "devices": 2, "strategy": strategy, "limit_train_batches": 2} | trainer
    return TrainedTask(
        NASBench201(),
        DigitsDataModule(resolution=8, batch_size=32),
        epochs=1,
        build={"channels": 4, "cells": 1},
        threads=1,
        trainer=arguments,
    )


@pytest.mark.parametrize(("start", "devices"), [("fork", 2), ("spawn", 1)])
def test_what_is_left_in_the_environment_leads_nobody_astray(start, devices, monkeypatch):
    """An earlier training or a launcher has left where it met; there, somebody else listens now, or nobody can be."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        monkeypatch.setenv("MASTER_ADDR", "203.0.113.1")
        for name in ("NODE_RANK", "GROUP_RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, "1")
        evaluation = task(f"ddp_{start}_find_unused_parameters_true", devices=devices).evaluate_one(
            Proposal((1,) * 6, 0)
        )
    assert evaluation.status == "ok", evaluation.reason


def test_a_port_is_kept_from_when_it_is_chosen():
    """Lightning, told the number alone, lets others listen there until the first process does."""
    one, other = OwnProcesses(), OwnProcesses()
    for environment in (one, other, one):
        with pytest.raises(OSError, match="in use"), socket.create_server(("127.0.0.1", environment.main_port)):
            pass


def test_processes_that_wait_for_each_other_end_with_the_one_that_started_them(server, tmp_path):
    """The second is late, so the first waits where no word reaches it."""
    job = Job(server, tmp_path, RECIPE)
    (starter,) = job.start(ranks=1)
    wait_until(lambda: notes(job.notes, "first") and notes(job.notes, "second"), job.said)
    processes = [notes(job.notes, at)[0] for at in ("first", "second")]
    wait_until(lambda: threads_of(processes[0]) > 1, job.said)  # by one of them it listens
    os.kill(starter, signal.SIGKILL)
    assert server.wait(starter) == -signal.SIGKILL
    wait_until(lambda: not any(map(alive, processes)))
