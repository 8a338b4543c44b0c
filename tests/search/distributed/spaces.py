"""Spaces, agents and networks of searches over several processes: well behaved and troubled ones."""

import json
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from lightning_modules.classification import ClassificationModule
from lightning_modules.networks.batch_statistics import BatchStatistics
from search.agents.random_search import RandomSearch
from search.spaces.base import Decision, SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.studies.supernet_job import read_outcome


def rank():
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def note(architecture):
    """Say what this rank builds, and how much of the system it has in use; not of networks without values."""
    if torch.get_default_device().type == "meta":
        return
    line = [os.getpid(), list(architecture), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))]
    if "NOTES" in os.environ:
        with open(f"{os.environ['NOTES']}/{rank()}.txt", "a") as file:
            file.write(json.dumps(line) + "\n")


def notes(folder, of_rank):
    file = folder / f"{of_rank}.txt"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def hold():
    """Say so, and wait for what the test does then."""
    (Path(os.environ["NOTES"]) / "held").touch()
    time.sleep(1000)


class JointNorms(NASBench201):
    """Normalises over all ranks; torch's own way to do that is for GPUs only."""

    def build(self, architecture, *arguments, **named):
        note(architecture)
        if rank() == 1 and len(notes(Path(os.environ["NOTES"]), 1)) == 3 and os.environ.get("DIE"):
            os.kill(os.getpid(), signal.SIGKILL)
        network = super().build(architecture, *arguments, **named)
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, BatchStatistics(child.num_features, affine=True))
        return network


def _raise(error):
    raise error


class Trouble(nn.Module):
    """A network that is in trouble in its second step, on some rank."""

    def __init__(self, kind, classes):
        super().__init__()
        self.linear, self.kind, self.steps = nn.Linear(64, classes), kind, 0

    def forward(self, images):
        self.steps += 1
        what, _, where = self.kind.partition(" on rank ")
        if self.steps == 2 and str(rank()) == where:
            if what == "memory":
                torch.empty(2**58).zero_()  # a real refusal of the allocator: 2^60 bytes
            _raise(IndexError("a layer of no width"))
        if what == "slow" and os.environ.get("HOLD") == str(rank()):
            hold()
        return self.linear(images.flatten(1))


class Troubled(SearchSpace):
    """What goes wrong, and where."""

    name = "troubled"
    decisions = (
        Decision("kind", ("fine", "crash on rank 1", "memory on rank 1", "crash on rank 0", "build on rank 1", "slow")),
        Decision("nothing", ("at all", "whatever")),
    )

    def build(self, architecture, head):
        note(architecture)
        kind = self.decisions[0].choices[architecture[0]]
        if kind == f"build on rank {rank()}":
            raise RuntimeError("no such network")
        return Trouble(kind, head.classes)


class InOrder(RandomSearch):
    """Every choice of the first decision, and from the start again."""

    asked = 0

    def ask(self, n=1):
        if self.asked == 4 and "THINK" in os.environ:
            hold()
        first = torch.arange(self.asked, self.asked + n) % len(self.space.decisions[0].choices)
        self.asked += n
        return torch.stack([first, torch.zeros_like(first)], dim=1)[None]

    def state_dict(self):
        return super().state_dict() | {"asked": self.asked}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.asked = state["asked"]


def smooth(network):
    """Without kinks: where a sum of two ranks has other last bits than that of one process, they stay last bits."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
    return network


class SmoothNorms(JointNorms):
    """For trainings that are compared to the last digits."""

    def build(self, architecture, *arguments, **named):
        return smooth(super().build(architecture, *arguments, **named))

    def build_supernet(self, norm, *arguments, **named):
        return smooth(super().build_supernet(norm, *arguments, **named))


class Jittered(ClassificationModule):
    """Ranks draw different random numbers; one waits in its second epoch where a test is to interrupt it."""

    def configure_models(self, network):
        super().configure_models(nn.Sequential(network, nn.Dropout(0.3)))

    def on_train_start(self):
        torch.rand(1 + rank())

    def on_train_batch_start(self, batch, batch_index):
        if os.environ.get("HOLD") == str(rank()) and self.current_epoch == 1 and batch_index == 3:
            hold()


def _checkpoints():
    return Path().glob("runs/recipe/2*/supernets/landmarks-0/last.ckpt")


def _iterations(path):
    return read_outcome(path).iterations


class Late(ClassificationModule):
    """The second of the processes that one has started never comes to where they meet."""

    def configure_callbacks(self):
        second = os.environ["LOCAL_RANK"] == "1"
        with open(f"{os.environ['NOTES']}/{'second' if second else 'first'}.txt", "a") as file:
            file.write(f"{os.getpid()}\n")
        while second:
            time.sleep(1)
        return []


class TroubledSupernet(SmoothNorms):
    """Its supernet waits in the first epoch behind a landmark that was added, or fails in its tenth step."""

    def build_supernet(self, norm, *arguments, **named):
        supernet = super().build_supernet(norm, *arguments, **named)
        supernet.register_forward_pre_hook(self._before)
        return supernet

    def _before(self, supernet, inputs):
        if os.environ.get("HOLD") == str(rank()) and supernet.training and any(map(_iterations, _checkpoints())):
            hold()
        if os.environ.get("FAIL_IN") == str(rank()) and supernet.training:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 10:
                raise IndexError("a path that leads nowhere")
