"""A search for a device finds what is good on that device. The quality is invented: no network is trained."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.fbnet import FBNetSampler
from search.attributes.fbnet_latency import FBNetLatency
from search.spaces.fbnet import FBNet

SPACE = FBNet()
DEVICES = ("pixel3", "fpga", "eyeriss")
GAINS = torch.tensor([0.30, 0.25, 0.42, 0.50, 0.34, 0.29, 0.46, 0.54, 0.0])
"""What each operation takes off a loss of 3, in tenths: more where a block is wider or its kernel larger."""


def loss_of(weights):
    return 3 - 0.1 * (torch.stack(list(weights)) * GAINS).sum()


def found_for(device):
    """The likeliest architecture of a search, and its objective on every device."""
    settings = {"beta": 2.0, "learning_rate": 0.08, "temperature_decay": 0.8, "warmup": 0, "weight_decay": 0.0}
    sampler = FBNetSampler(SPACE, partial(FBNetLatency, device=device), **settings)
    for number in range(120):
        step = ArchitectureStep(
            nn.Linear(1, 1), None, lambda path: loss_of(path.weights), lambda _: None, 0, number, 0.0, 0.1
        )
        sampler.learn(step)
        if number % 12 == 11:
            sampler.epoch_ended(lambda archs: [], 0, number // 12, 10)
    return tuple(int(logits.argmax()) for logits in sampler.logits)


def objective(arch, device):
    loss = float(loss_of(nn.functional.one_hot(torch.tensor(arch), 9).float()))
    return loss * math.log(1000 * milliseconds(arch, device)) ** 2


def milliseconds(arch, device):
    return float(FBNetLatency(SPACE, device).values(torch.tensor(arch)))


@pytest.fixture(scope="module")
def found():
    return {device: found_for(device) for device in DEVICES}


def test_what_was_searched_for_a_device_is_better_there_than_what_was_searched_for_another(found):
    assert len(set(found.values())) == len(DEVICES)
    for device in DEVICES:
        own = objective(found[device], device)
        assert all(own < objective(found[other], device) for other in DEVICES if other != device)


def best_on(device):
    """The lowest objective that changes of one layer at a time reach from nine starts, with no gradient."""
    latency = FBNetLatency(SPACE, device)
    prices, constant = torch.stack(latency.prices()), latency.constant()
    lowest = math.inf
    for start in range(9):
        arch, changed = torch.full((22,), start), True
        while changed:
            changed = False
            for t in range(22):
                rest = [k for k in range(22) if k != t]
                milliseconds = constant + prices[rest, arch[rest]].sum() + prices[t]
                losses = 3 - 0.1 * (GAINS[arch[rest]].sum() + GAINS)
                values = losses * (1000 * milliseconds).clamp(min=2).log() ** 2
                best = int(values.argmin())
                changed |= best != int(arch[t])
                arch[t] = best
        lowest = min(lowest, float(values.min()))
    return lowest


def test_it_comes_near_to_the_best_there_is(found):
    """Not on the FPGA, where a network that skips all costs nothing: the product is least there, whatever the loss."""
    for device in ("pixel3", "eyeriss"):
        assert objective(found[device], device) < 1.03 * best_on(device)
    assert best_on("fpga") < 0.1 * objective(found["fpga"], "fpga")
