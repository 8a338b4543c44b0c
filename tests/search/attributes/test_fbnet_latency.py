"""Latencies of FBNet's networks: those that were published, tables of one's own, and sums over choices."""

import numpy as np
import pytest
import torch

from search.attributes.cost_by_choice import CostByChoice
from search.attributes.fbnet_latency import FBNetLatency
from search.attributes.flops import Flops
from search.attributes.operator_latency import OperatorLatency
from search.attributes.parameters import Parameters
from search.errors import CatchmarkError
from search.randomness import TrialRandom
from search.spaces.fbnet import PUBLISHED, FBNet
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201
from search.tables import SHIPPED_FOLDER

SPACE, SMALL = FBNet(), FBNet([1, 2])
BUILD = {"width_multiplier": 0.25, "head_channels": 8, "num_classes": 3}


def shipped():
    with np.load(SHIPPED_FOLDER / "fbnet_operator_latency.npz") as arrays:
        return dict(arrays)


def added_up(cost, arch):
    return cost.constant() + sum(float(own[choice]) for own, choice in zip(cost.prices(), arch, strict=True))


# ---- the table that ships -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("device", "expected"), [("pixel3", (19.29, 22.87, 28.78)), ("raspi4", (38.34, 43.72, 52.70))])
def test_published_networks_take_as_long_as_the_table_says(device, expected):
    archs = torch.tensor([arch for arch, _ in PUBLISHED.values()])
    assert FBNetLatency(SPACE, device).values(archs).tolist() == pytest.approx(expected, abs=0.005)


def test_a_smaller_space_takes_the_layers_of_its_stages_from_the_front():
    table = shipped()
    extra = table["extra_ms"][table["devices"].tolist().index("fpga")]
    space = FBNet([1, 1, 3])
    prices = torch.stack(FBNetLatency(space, "fpga").prices())
    torch.testing.assert_close(prices, torch.from_numpy(extra[[0, 1, 5, 6, 7]]).double())
    archs = space.canonical(space.sample(TrialRandom(0), 20)[0])
    latency = FBNetLatency(space, "fpga")
    assert latency.values(archs).tolist() == pytest.approx([added_up(latency, arch) for arch in archs.tolist()])


@pytest.mark.parametrize("device", ["samsung_s7", "essential_ph_1", "samsung_a50", "pixel2"])
def test_a_fit_that_predicts_nothing_is_refused(device):
    with pytest.raises(ValueError, match=rf"latencies on '{device}' are a fit that explains \d\d%"):
        FBNetLatency(SPACE, device)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match=r"no device 'pixle3'.*'pixel3'"):
        FBNetLatency(SPACE, "pixle3")
    with pytest.raises(ValueError, match="its latencies are of the space 'fbnet', this is 'nasbench201'"):
        FBNetLatency(NASBench201(), "pixel3")
    with pytest.raises(ValueError, match="stage 1 has 1 layers in it, the space's has 2"):
        FBNetLatency(FBNet([2]), "pixel3")


# ---- tables of one's own --------------------------------------------------------------------------------------------


def test_a_table_of_ones_own_may_have_other_devices_and_another_order(tmp_path):
    table = shipped()
    order = np.arange(9)[::-1]
    mine = {"devices": np.array(["mine"]), "ops": table["ops"][order]}
    generator = np.random.default_rng(0)
    mine |= {"all_skip_ms": np.array([1.5]), "extra_ms": generator.random((1, 22, 9))[:, :, order]}
    np.savez(tmp_path / "mine.npz", **mine)
    latency = FBNetLatency(SPACE, "mine", str(tmp_path / "mine.npz"))
    expected = np.random.default_rng(0).random((22, 9))
    assert latency.constant() == 1.5
    np.testing.assert_allclose(torch.stack(latency.prices()).numpy(), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ops": np.array(["a"] * 9)}, "ops are a, a, "),
        ({"extra_ms": np.zeros((27, 21, 9))}, r"extra_ms \[27, 21, 9\], \[27\] and \[27, 22, 9\] are needed"),
        ({"extra_ms": np.full((27, 22, 9), np.nan)}, "not all of its latencies are finite"),
        ({"devices": None}, "no readable devices, ops, all_skip_ms and extra_ms"),
    ],
)
def test_a_wrong_table_is_refused(change, message, tmp_path):
    arrays = {key: value for key, value in (shipped() | change).items() if value is not None}
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        FBNetLatency(SPACE, "pixel3", str(tmp_path / "wrong.npz"))


# ---- attributes as sums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [Flops, Parameters])
def test_flops_and_parameters_are_sums_over_fbnets_choices(of):
    cost = CostByChoice(SMALL, lambda space: of(space, build=BUILD))
    attribute = of(SMALL, build=BUILD)
    for arch in SMALL.sample(TrialRandom(4), 12)[0].tolist():
        assert added_up(cost, arch) == float(attribute.values(torch.tensor(arch)))


def test_latencies_measured_on_this_machine_are_sums_too(tmp_path):
    settings, space = {"resolution": 16, "warmup": 0, "repeats": 1, "rounds": 1}, FBNet([2])

    def measured(space):
        return OperatorLatency(space, str(tmp_path / "mine.json"), BUILD, settings)

    cost = CostByChoice(space, measured)
    assert not (tmp_path / "mine.json").exists()  # nothing is measured before it is asked for
    archs = space.sample(TrialRandom(5), 4)[0].tolist()
    sums = [added_up(cost, arch) for arch in archs]
    written = (tmp_path / "mine.json").read_bytes()
    assert sums == pytest.approx([float(measured(space).values(torch.tensor(arch))) for arch in archs], rel=1e-6)
    assert (tmp_path / "mine.json").read_bytes() == written  # all of it was looked up


def test_what_is_no_sum_is_refused():
    with pytest.raises(ValueError, match="some choices rule out others"):
        CostByChoice(NASBench101(), Parameters).prices()
    build = {"channels": 4, "cells": 1}
    with pytest.raises((ValueError, CatchmarkError), match="it is no sum over choices"):
        CostByChoice(NASBench201(), lambda space: Flops(space, build)).constant()
