"""The script for a machine with an accelerator, at toy size on a processor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def called(tmp_path_factory):
    """What it said, and its folder."""
    folder = tmp_path_factory.mktemp("gpu")
    random = np.random.default_rng(0)
    images = {
        f"x_{part}": random.integers(0, 256, (n, 8, 8, 3), np.uint8) for part, n in (("train", 300), ("test", 20))
    }
    labels = {f"y_{part}": np.arange(n) % 10 for part, n in (("train", 300), ("test", 20))}
    np.savez(folder / "cifar10.npz", **images, **labels)
    environment = os.environ | {"PYTHON": sys.executable, "GPU_TOY": "1", "GPU_SECONDS": "400", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "experiments/benchmarks/gpu.sh"), "cifar10.npz", "out"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done, folder / "out"


def test_it_walks_through_all_parts(called):
    done, out = called
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a path on the device and on the processor: they differ by 0 at most" in done.stdout
    assert "DDP with one process: gloo, weights differ by 0 at most" in done.stdout
    rows = json.loads((out / "steps.json").read_text())
    assert len(rows["steps"]) == 6 and rows["bytes_per_second"] > 1e8
    for row in rows["steps"].values():
        assert row["images_per_second"] > 0 and 0 < row["share"] < 1


def test_it_trains_with_and_without_landmarks(called):
    _, out = called
    (summary,) = out.glob("runs/*/2*/summary.json")
    methods = json.loads(summary.read_text())["methods"]
    assert list(methods) == ["spos", "spos_landmarks"] and all(method["trials"] == 1 for method in methods.values())
