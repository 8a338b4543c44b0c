"""Measured latencies: the conditions of a measurement, and what it leaves behind."""

import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from lightning_modules.networks.cost.latency import LatencySettings, hardware_name, measure_latency, median_of_medians

QUICK = {"resolution": 8, "warmup": 2, "repeats": 3, "rounds": 2}
SEEN: list[dict] = []


class Witness(nn.Module):
    """Writes down under what conditions it runs; a copy writes to the same list."""

    def __init__(self, milliseconds=0.0):
        super().__init__()
        self.convolution, self.drop, self.milliseconds = nn.Conv2d(3, 4, 3), nn.Dropout(0.5), milliseconds

    def forward(self, images):
        until = time.thread_time() + self.milliseconds / 1e3
        while time.thread_time() < until:
            pass
        SEEN.append(
            {
                "shape": tuple(images.shape),
                "dtype": images.dtype,
                "weights": self.convolution.weight.dtype,
                "channels_last": images.is_contiguous(memory_format=torch.channels_last),
                "training": self.training or self.drop.training,
                "inference": torch.is_inference_mode_enabled(),
                "threads": torch.get_num_threads(),
            }
        )
        return self.drop(self.convolution(images))


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


def test_every_pass_runs_under_the_conditions_that_are_stated():
    settings = LatencySettings(batch=2, threads=3, precision="bfloat16", channels_last=True, **QUICK)
    found = measure_latency(Witness(), settings)
    assert len(SEEN) == 2 + 2 * 3  # the warm-up, and every repeat of every round
    assert all(
        each
        == {
            "shape": (2, 3, 8, 8),
            "dtype": torch.bfloat16,
            "weights": torch.bfloat16,
            "channels_last": True,
            "training": False,
            "inference": True,
            "threads": 3,
        }
        for each in SEEN
    )
    assert found.settings == settings and found.hardware == hardware_name(torch.device("cpu")) != ""
    assert "2 x 3 x 8 x 8" in str(found) and "bfloat16" in str(found)


def test_a_rectangle_has_its_height_first():
    measure_latency(Witness(), LatencySettings(**(QUICK | {"resolution": [6, 10]})))
    assert {each["shape"] for each in SEEN} == {(1, 3, 6, 10)}


@pytest.mark.parametrize("threads", [1, 2])
def test_the_whole_pass_is_timed(threads):
    # A pass can't be done sooner than it lets itself.
    found = measure_latency(Witness(milliseconds=2.0), LatencySettings(threads=threads, **QUICK))
    assert found.milliseconds >= 2.0 and found.spread >= 0.0


def test_what_is_measured_stays_as_it_was():
    network = Witness()
    network.drop.eval()
    weights, threads = network.convolution.weight.clone(), torch.get_num_threads()
    random, benchmark = torch.get_rng_state(), torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        measure_latency(network, LatencySettings(threads=threads + 1, precision="float16", **QUICK))
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = benchmark
    assert network.training and not network.drop.training
    assert torch.equal(network.convolution.weight, weights) and network.convolution.weight.dtype == torch.float32
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), random)
    assert not torch.is_inference_mode_enabled()


def test_a_network_that_fails_leaves_the_threads_as_they_were():
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="channels"):
        measure_latency(Witness(), LatencySettings(channels=5, threads=threads + 1, **QUICK))
    assert torch.get_num_threads() == threads


def test_medians_ignore_what_happens_now_and_then():
    # By hand: medians 2, 50 and 3 of three rounds, one of which another process took; their median is 3.
    assert median_of_medians([[1.0, 2.0, 90.0], [50.0, 40.0, 60.0], [3.0, 3.0, 2.0]]) == (3.0, 16.0)
    assert median_of_medians([[4.0]]) == (4.0, 0.0)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"batch": 0}, "batch is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"resolution": [1, 2, 3]}, "height and width"),
        ({"resolution": []}, "height and width"),
        ({"resolution": 0}, "resolution is 0"),
        ({"precision": "float8"}, "allowed: float32, bfloat16, float16"),
        ({"device": "gpu"}, "device is 'gpu', allowed: cpu, cuda"),
        ({"device": "7"}, "device is '7'"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        LatencySettings(**arguments)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"device is 'cuda:99', this machine has: cpu"):
        measure_latency(Witness(), LatencySettings(device="cuda:99", **QUICK))
    assert not SEEN


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_is_timed_by_its_own_clock():
    found = measure_latency(nn.Conv2d(3, 8, 3), LatencySettings(device="cuda", **QUICK))
    assert found.milliseconds > 0 and found.hardware == torch.cuda.get_device_name()


def test_settings_are_told_apart_by_what_a_latency_depends_on():
    assert (
        LatencySettings(device="cuda", threads=1).described() == LatencySettings(device="cuda:1", threads=2).described()
    )
    assert LatencySettings(threads=1).described() != LatencySettings(threads=2).described()
    assert LatencySettings(repeats=3).described() == LatencySettings(repeats=9).described()


def test_importing_does_not_import_lightning():
    code = "import sys, lightning_modules.networks.cost.operator_latency; assert 'pytorch_lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
