"""Latencies as sums over operators, beside sums by hand."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_modules.networks.cost.latency import LatencySettings
from lightning_modules.networks.cost.operator_latency import OperatorLatencies, operators_of
from search.spaces.base import SearchSpace
from search.spaces.head import Head
from search.spaces.nasbench201 import NASBench201
from search.spaces.residual_backbone import ResidualBackbone

SETTINGS = LatencySettings(resolution=8, warmup=1, repeats=2, rounds=2)

# What the network below does, written out by hand, and made-up times that add up exactly in binary.
CONVOLUTION = "aten.conv2d.default(float32[1, 3, 8, 8], float32[4, 3, 3, 3], float32[4], [1, 1], [1, 1])"
AGAIN = "aten.conv2d.default(float32[1, 4, 8, 8], float32[4, 4, 3, 3], None, [1, 1], [1, 1])"
NORM = (
    "aten.batch_norm.default(float32[1, 4, 8, 8], float32[4], float32[4], float32[4], float32[4], False, 0.1, 1e-05, "
    "True)"
)
SUM = "aten.add.Tensor(float32[1, 4, 8, 8], float32[1, 4, 8, 8])"
ACTIVATION = "aten.relu.default(float32[1, 4, 8, 8])"
POOLING = "aten.adaptive_avg_pool2d.default(float32[1, 4, 8, 8], [1, 1])"
LINEAR = "aten.linear.default(float32[1, 4], float32[5, 4], float32[5])"
TIMES = {CONVOLUTION: 1.0, AGAIN: 2.0, NORM: 0.25, SUM: 0.125, ACTIVATION: 0.0625, POOLING: 8.0, LINEAR: 16.0}


class Residual(nn.Module):
    """A sum and functional calls that no module stands for."""

    def __init__(self, blocks=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)) for _ in range(blocks)
        )
        self.linear = nn.Linear(4, 5)

    def forward(self, images):
        x = self.stem(images)
        for block in self.blocks:
            x = functional.relu(x + block(x))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def test_operators_of_a_network_by_hand():
    block = [AGAIN, NORM, SUM, ACTIVATION]
    assert operators_of(Residual(), SETTINGS) == [CONVOLUTION, *block, *block, POOLING, LINEAR]


def test_the_sum_by_hand():
    table = OperatorLatencies(SETTINGS, TIMES)
    assert table.estimate(Residual(2)) == 1 + 2 * (2 + 0.25 + 0.125 + 0.0625) + 8 + 16
    assert table.estimate(Residual(5)) == 1 + 5 * (2 + 0.25 + 0.125 + 0.0625) + 8 + 16
    table.overhead = 0.5
    assert table.estimate(Residual(2)) == 29.875 + 0.5 * 11


def test_other_shapes_and_other_arguments_are_other_operators():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=2, dilation=2), nn.ReLU())
    keys = operators_of(network, SETTINGS)
    assert len(set(keys)) == 3
    assert not set(keys) & set(operators_of(network, LatencySettings(resolution=9)))
    assert not set(keys) & set(operators_of(network, LatencySettings(resolution=8, batch=2)))
    assert not set(keys) & set(operators_of(network, LatencySettings(resolution=8, precision="bfloat16")))


def test_a_trace_computes_nothing_and_leaves_the_network_as_it_was():
    network = Residual().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    operators_of(network, SETTINGS)
    assert network.training and network.blocks[0][1].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_operator_that_is_not_in_the_table_is_named():
    lacking = {key: value for key, value in TIMES.items() if key != POOLING}
    with pytest.raises(ValueError, match=r"1 of the network's 7 operators .*adaptive_avg_pool2d"):
        OperatorLatencies(SETTINGS, lacking).estimate(Residual())


def test_measuring_adds_what_is_lacking_and_changes_nothing_else():
    table = OperatorLatencies(SETTINGS, {CONVOLUTION: 1e6, NORM: 2e6})
    assert table.measure(Residual()) == 5
    assert set(table.milliseconds) == set(TIMES)
    assert table.milliseconds[CONVOLUTION] == 1e6 and table.milliseconds[NORM] == 2e6
    measured = {key: value for key, value in table.milliseconds.items() if value < 1e6}
    assert len(measured) == 5 and all(value > 0 for value in measured.values())
    assert table.measure(Residual(7)) == 0
    assert {key: value for key, value in table.milliseconds.items() if value < 1e6} == measured


@pytest.mark.parametrize(
    "space, build", [(NASBench201(), {"channels": 4, "cells": 1}), (ResidualBackbone(), {"width": 0.1})]
)
def test_real_networks_call_what_their_trace_says(space: SearchSpace, build):
    settings = LatencySettings(resolution=32, warmup=0, repeats=1, rounds=1)
    table = OperatorLatencies(settings)
    network = space.build(space.draw("latency", 0), Head(10, 3), **build)
    assert table.measure(network) == len(set(operators_of(network, settings)))
    total = math.fsum(table.milliseconds[key] for key in operators_of(network, settings))
    assert table.estimate(network) == pytest.approx(total, rel=1e-12)


class TwoFaced(nn.Module):
    """Computes something else where tensors have values."""

    def forward(self, images):
        return images.relu() if images.device.type == "meta" else images.sigmoid()


def test_a_network_that_calls_other_operators_than_its_trace_is_refused():
    with pytest.raises(ValueError, match=r"calls aten.sigmoid.default.* on cpu, but aten.relu.default.* on meta"):
        OperatorLatencies(SETTINGS).measure(TwoFaced())


def test_the_overhead_is_the_least_squares_fit():
    table = OperatorLatencies(SETTINGS, TIMES)
    # 7 and 15 operators; the sums are 27.4375 and 32.3125.
    assert [len(operators_of(Residual(blocks), SETTINGS)) for blocks in (1, 3)] == [7, 15]
    overhead = table.calibrate([(Residual(1), 27.4375 + 1.0), (Residual(3), 32.3125 + 4.0)])
    assert overhead == table.overhead == pytest.approx((7 * 1.0 + 15 * 4.0) / (7**2 + 15**2), rel=1e-12)
    assert table.calibrate([(Residual(1), 20.0)]) == 0.0  # operators can't take more than all the time there is


# ---- files ------------------------------------------------------------------------------------------------------


def test_a_saved_table_comes_back(tmp_path):
    table = OperatorLatencies(SETTINGS, TIMES | {"other": 0.1 + 0.2}, overhead=1 / 3)
    table.save(tmp_path / "table.json")
    again = OperatorLatencies.load(tmp_path / "table.json", LatencySettings(resolution=8, repeats=99))
    assert again.milliseconds == table.milliseconds and again.overhead == 1 / 3
    assert [each.name for each in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize(
    "other, words",
    [
        ({"threads": 4}, "threads 1, those of threads 4"),
        ({"batch": 2}, "batch 1, those of batch 2"),
        ({"resolution": 16}, r"resolution \[8, 8\], those of resolution \[16, 16\]"),
        ({"precision": "bfloat16"}, "precision float32, those of precision bfloat16"),
        ({"channels": 1}, "channels 3, those of channels 1"),
        ({"channels_last": True}, "channels_last False, those of channels_last True"),
    ],
)
def test_a_table_of_another_setting_is_refused(tmp_path, other, words):
    path = tmp_path / "table.json"
    OperatorLatencies(SETTINGS, TIMES).save(path)
    with pytest.raises(ValueError, match=words) as caught:
        OperatorLatencies.load(path, LatencySettings(**({"resolution": 8} | other)))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_of_another_machine_is_refused(tmp_path):
    OperatorLatencies(SETTINGS, TIMES, hardware="Abacus 1").save(tmp_path / "table.json")
    with pytest.raises(ValueError, match="its latencies are of hardware Abacus 1, those of hardware"):
        OperatorLatencies.load(tmp_path / "table.json", SETTINGS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace("latencies 1", "latencies 0"),
        lambda text: text.replace("16.0", '"fast"'),
        lambda text: text.replace("16.0", "NaN"),
        lambda text: text.replace("16.0", "-1"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "table.json"
    OperatorLatencies(SETTINGS, TIMES).save(path)
    assert damage(path.read_text()) != path.read_text()
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match="remove") as caught:
        OperatorLatencies.load(path, SETTINGS)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        OperatorLatencies.load(tmp_path / "table.json", SETTINGS)


def test_the_file_states_what_it_is_of(tmp_path):
    OperatorLatencies(SETTINGS, TIMES).save(tmp_path / "table.json")
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["torch"] == torch.__version__ and content["hardware"]
    assert content["settings"] == {
        "device": "cpu",
        "threads": 1,
        "batch": 1,
        "channels": 3,
        "resolution": [8, 8],
        "precision": "float32",
        "channels_last": False,
    }
