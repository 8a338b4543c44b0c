"""Normalisation without running statistics: against torch's own, with calibration, and over two processes."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # loaded later, its defaults would hold the group beyond its end
from torch import nn

from lightning_modules.networks.batch_statistics import BatchStatistics, fix, recalibrated
from lightning_modules.networks.supernet import Path
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201


def pair(affine, channels=5):
    ours, theirs = BatchStatistics(channels, affine), nn.BatchNorm2d(channels, affine=affine, track_running_stats=False)
    if affine:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name in ("weight", "bias"):
                values = torch.randn(channels, generator=generator)
                getattr(ours, name).copy_(values)
                getattr(theirs, name).copy_(values)
    return ours, theirs


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3 + 2


def values_and_gradients(norm, x):
    """Output, then gradients of a loss that weighs every output differently."""
    x = x.clone().requires_grad_()
    y = norm(x)
    slope = images(*y.shape, seed=5).to(y)
    return y.detach(), *torch.autograd.grad((y * slope).sum(), [x, *norm.parameters()])


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (2, 5, 1, 1), (1, 5, 7, 7)])
def test_is_batch_normalisation_without_running_statistics(affine, mode, shape):
    ours, theirs = pair(affine)
    getattr(ours, mode)(), getattr(theirs, mode)()
    found, expected = (values_and_gradients(norm, images(*shape)) for norm in (ours, theirs))
    assert len(found) == len(expected) == (4 if affine else 2)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_takes_any_layout_and_precision():
    ours, theirs = pair(True)
    x = images(6, 5, 4, 4).to(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.double()(x.double()), theirs.double()(x.double()))


def test_has_a_stand_alone_layer_s_keys_and_no_more():
    assert list(BatchStatistics(3, True).state_dict()) == ["weight", "bias"]
    assert not BatchStatistics(3).state_dict()


# ---- calibration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [False, True])
def test_calibrated_statistics_are_the_mean_of_those_of_the_batches(affine):
    ours, _ = pair(affine)
    network = nn.Sequential(ours)
    batches = [images(6, 5, 4, 4, seed=seed) for seed in range(3)]
    x = images(3, 5, 4, 4, seed=9)
    mean = torch.stack([each.mean((0, 2, 3)) for each in batches]).mean(0).view(-1, 1, 1)
    # The unbiased variance, as torch's running statistics are.
    variance = torch.stack([each.transpose(0, 1).flatten(1).var(1) for each in batches]).mean(0).view(-1, 1, 1)
    expected = (x - mean) / (variance + 1e-5).sqrt()
    if affine:
        expected = expected * ours.weight.view(-1, 1, 1) + ours.bias.view(-1, 1, 1)
    with recalibrated(network):
        for each in batches:
            # Calibration itself runs on the statistics of each batch.
            torch.testing.assert_close(network(each), pair(affine)[1](each))
        fix(network)
        torch.testing.assert_close(network(x), expected)
        torch.testing.assert_close(network(x[:1]), expected[:1])
    torch.testing.assert_close(network(x), pair(affine)[1](x))


@pytest.mark.parametrize("space", [NASBench201(), NASBench101()], ids=lambda space: space.name)
def test_a_calibrated_path_is_the_calibrated_stand_alone_network(space):
    head = {"num_classes": 3, "channels": 6, "cells": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = space.build_supernet_from(lambda width: BatchStatistics(width, True), head)
        arch = space.draw("calibrated", 3)
        network = space.build_from(arch, head)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a cumulative average: the mean over batches
    supernet.hand_down(arch, network)
    batches, x = [images(6, 3, 8, 8, seed=seed) for seed in range(2)], images(5, 3, 8, 8, seed=9)
    with torch.no_grad():
        plain = supernet(x, Path(arch))
        with recalibrated(supernet):
            for each in batches:
                supernet(each, Path(arch))
            fix(supernet)
            found = supernet(x, Path(arch))
        for each in batches:
            network(each)
        torch.testing.assert_close(found, network.eval()(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, plain, atol=1e-3)
        assert torch.equal(supernet(x, Path(arch)), plain)


def test_without_calibration_or_on_another_path_the_batch_s_statistics_stay():
    network = nn.ModuleList([BatchStatistics(5), BatchStatistics(5)])
    x = images(4, 5, 2, 2)
    with recalibrated(network):
        network[0](images(6, 5, 4, 4, seed=3))
        fix(network)
        assert not torch.allclose(network[0](x), nn.functional.batch_norm(x, None, None, training=True), atol=1e-2)
        torch.testing.assert_close(network[1](x), nn.functional.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize("fixed", [False, True])
def test_everything_is_as_before_even_after_an_error(fixed):
    network = nn.Sequential(BatchStatistics(5, True))
    x = images(4, 5, 2, 2)
    before, attributes = network(x), {key: value for key, value in vars(network[0]).items() if key != "_parameters"}
    with pytest.raises(RuntimeError, match="out of memory"), recalibrated(network):
        network(images(6, 5, 4, 4, seed=3))
        if fixed:
            fix(network)
        raise RuntimeError("out of memory")
    assert torch.equal(network(x), before)
    assert {key: value for key, value in vars(network[0]).items() if key != "_parameters"} == attributes
    with recalibrated(network):  # and nothing of the failed calibration is left for the next one
        network(x)
        fix(network)
        torch.testing.assert_close(network(x), before, rtol=0.1, atol=0.1)


def test_nothing_is_recorded_any_more_once_statistics_are_fixed():
    network = nn.Sequential(BatchStatistics(5))
    with recalibrated(network):
        fix(network)
        network(images(4, 5, 2, 2))
        assert not network[0]._recorded


# ---- two processes ---------------------------------------------------------------------------------------------------

CASES = {
    "plain": lambda: (pair(False)[0], images(8, 5, 4, 3)),
    "affine": lambda: (pair(True)[0], images(8, 5, 4, 3)),
    "one pixel": lambda: (pair(True)[0], images(4, 5, 1, 1)),
    "far from zero": lambda: (pair(False)[0], 100 + 0.01 * images(8, 5, 4, 4)),
}


def normalise(rank, folder):
    """In one of two processes: every second image of each case's batch."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}
    for name, case in CASES.items():
        norm, x = case()
        whole = images(*x.shape, seed=5)
        x = x[rank::2].clone().requires_grad_()
        y = norm(x)
        gradients = torch.autograd.grad((y * whole[rank::2]).sum(), [x, *norm.parameters()])
        with torch.no_grad():
            evaluated = norm.eval()(x)
        found[name] = [y.detach(), *gradients, evaluated]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(normalise, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "affine",
        "one pixel",
        pytest.param(
            "far from zero",
        ),
    ],
)
def test_two_ranks_give_the_outputs_and_gradients_of_the_joint_batch(name, ranks):
    norm, x = CASES[name]()
    y, gradient, *of_parameters = values_and_gradients(norm, x)
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    if name == "far from zero":  # single precision itself is this coarse there, with one process too
        tolerance = {"rtol": 1e-2, "atol": 1e-2}
        gradient, ranks = gradient / 100, [{name: [r[name][0], r[name][1] / 100, r[name][2]]} for r in ranks]
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found[name][0], y[rank::2], **tolerance)
        torch.testing.assert_close(found[name][-1], y[rank::2], **tolerance)
        torch.testing.assert_close(found[name][1], gradient[rank::2], **tolerance)
    # The gradients of scale and shift are each rank's own; together they are those of the joint batch.
    for ours, theirs, joint in zip(ranks[0][name][2:-1], ranks[1][name][2:-1], of_parameters, strict=True):
        torch.testing.assert_close(ours + theirs, joint, rtol=1e-4, atol=1e-4)
