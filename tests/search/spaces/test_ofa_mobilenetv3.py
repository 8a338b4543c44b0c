"""Once-for-all's space: published sizes, and what predictor and latencies say of known networks."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lightning_modules.networks.cost.complexity import count_flops
from search.randomness import TrialRandom
from search.rewards.ofa_latency import OFALatency
from search.spaces.nasbench201 import NASBench201
from search.spaces.ofa_mobilenetv3 import DEPTHS, EXPANSIONS, KERNELS, RESOLUTIONS, OFAMobileNetV3
from search.tasks.ofa_predictor import OFAPredictorTask

FILE = next(
    (
        found
        for folder in (os.environ.get("CATCHMARK_DATA"), "../shared/data")
        if folder and (found := Path(folder, "ofa_mobilenetv3.npz")).is_file()
    ),
    None,
)
with_file = pytest.mark.skipif(FILE is None, reason="ofa_mobilenetv3.npz is not in $CATCHMARK_DATA")


def encoded(resolution, depths, kernels, expansions):
    """An architecture out of numbers; kernels and expansions of 20 layers, whether they are there or not."""
    choices = [RESOLUTIONS.index(resolution), *(DEPTHS.index(depth) for depth in depths)]
    for layer in range(20):
        there = layer % 4 < depths[layer // 4]
        choices += [KERNELS.index(kernels[layer]), EXPANSIONS.index(expansions[layer])] if there else [0, 0]
    return tuple(choices)


LARGEST = encoded(224, (4,) * 5, (7,) * 20, (6,) * 20)
SMALLEST = encoded(160, (2,) * 5, (3,) * 20, (3,) * 20)


def test_the_number_of_architectures():
    """Of a stage (9^2 + 9^3 + 9^4) combinations differ; a layer that is not there has one."""
    space = OFAMobileNetV3()
    assert len(space.decisions) == 46
    networks = (9**2 + 9**3 + 9**4) ** 5
    assert networks == pytest.approx(2.2e19, rel=0.02)
    stage = 0
    for depth in range(3):
        prefix, count = [0, depth, 0, 0, 0, 0], 1
        for _ in range(8):
            valid = space.valid_choices(torch.tensor(prefix))
            count, prefix = count * int(valid.sum()), [*prefix, 0]
        stage += count
    assert stage**5 == networks


def test_a_repeated_cell_is_a_network_of_the_whole_space():
    space, whole = OFAMobileNetV3(repeated=True), OFAMobileNetV3()
    everything = torch.tensor(list(space.enumerate()))
    unrolled = space.unrolled(everything)
    assert len(everything) == len(unrolled.unique(dim=0)) == 135
    assert whole.is_valid(unrolled).all()
    assert tuple(space.unrolled(torch.tensor([4, 2, 2, 2])).tolist()) == LARGEST


@pytest.fixture(scope="module")
def arrays():
    with np.load(FILE, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


@with_file
def test_published_networks_have_their_published_arithmetic(arrays):
    """Three networks are named by their multiply-accumulates; one of them for pictures of 236 pixels."""
    space, found = OFAMobileNetV3(), {}
    for k, name in enumerate(arrays["published_name"]):
        if not str(name).startswith("flops"):
            continue
        kernels, expansions = arrays["published_kernel"][k].tolist(), arrays["published_expand"][k].tolist()
        architecture = encoded(224, arrays["published_depth"][k].tolist(), kernels, expansions)
        with torch.device("meta"):
            network = space.build(architecture)
        pixels = int(arrays["published_resolution"][k])
        found[float(arrays["published_cost"][k])] = count_flops(network, (3, pixels, pixels)) / 1e6
    assert sorted(found) == [389, 482, 595]
    for published, counted in found.items():
        assert counted == pytest.approx(published, abs=0.6)


@with_file
def test_the_predictor_and_the_latencies_of_known_networks(arrays):
    task = OFAPredictorTask(OFAMobileNetV3(), str(FILE))
    accuracy, latency = task.predict(torch.tensor([LARGEST, SMALLEST]))
    assert accuracy.tolist() == pytest.approx([83.59, 75.31], abs=0.006)
    k = [str(name).split("_top1")[0] for name in arrays["published_name"]].index("note10_lat-30ms")
    kernels, expansions = arrays["published_kernel"][k].tolist(), arrays["published_expand"][k].tolist()
    published = encoded(224, arrays["published_depth"][k].tolist(), kernels, expansions)
    assert float(task.predict(torch.tensor([published]))[1]) == pytest.approx(29.97, abs=0.006)
    random = task.space.sample(TrialRandom(0), 2000)[0]
    accuracy, latency = task.predict(random)
    assert float(accuracy.mean()) == pytest.approx(80.0, abs=0.05)
    assert spearmanr(accuracy, latency).statistic == pytest.approx(0.895, abs=0.02)
    alone = torch.cat([task.predict(random[k : k + 1])[0] for k in range(20)])
    assert torch.equal(alone, accuracy[:20])  # what others it is predicted with changes no bit


@with_file
def test_the_reward_is_one_at_the_target():
    task = OFAPredictorTask(OFAMobileNetV3(), str(FILE))
    soft = OFALatency(task, 25.0, table=str(FILE))
    hard = OFALatency(task, 25.0, alpha=0.0, beta=-1.0, table=str(FILE))
    milliseconds = torch.tensor([12.5, 25.0, 50.0], dtype=torch.float64)
    assert soft.weigh(milliseconds).tolist() == pytest.approx([2**0.07, 1.0, 2**-0.07])
    assert hard.weigh(milliseconds).tolist() == pytest.approx([1.0, 1.0, 0.5])
    measured = soft.values(torch.tensor([LARGEST])).measured
    assert torch.equal(measured, task.predict(torch.tensor([LARGEST]))[1])
    with pytest.raises(ValueError, match="target_milliseconds is nan"):
        OFALatency(task, math.nan, table=str(FILE))


def test_without_the_file_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CATCHMARK_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="no predictor"):
        OFAPredictorTask(OFAMobileNetV3())
    (tmp_path / "ofa_mobilenetv3.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="no readable predictor"):
        OFAPredictorTask(OFAMobileNetV3())
    with pytest.raises(ValueError, match="OFAMobileNetV3"):
        OFAPredictorTask(NASBench201())
