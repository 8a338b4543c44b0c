"""FBNet's space and sampler in whole runs: searched, searched on, trained, and exported."""

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
import yaml

from search.agents.base import Agent
from search.agents.halving import Halving
from search.cli import main
from search.deploy import load_network
from search.recipes.catalogue import find_classes
from search.spaces.fbnet import FBNet
from search.studies.supernet_job import checkpoint_of, read_outcome

SPACE = {"class_path": "FBNet", "init_args": {"layers": [1, 2]}}
BUILD = {"skeleton": "cifar", "width_multiplier": 0.25, "head_channels": 8}
DATA = {"class_path": "DigitsDataModule", "init_args": {"batch_size": 32}}
FEW = {"limit_train_batches": 3, "limit_val_batches": 1}
TRUTH = {
    "class_path": "TrainedTask",
    "init_args": {"data": DATA, "epochs": 1, "build": BUILD, "threads": 1, "trainer": FEW},
}
SAMPLER = {
    "class_path": "FBNetSampler",
    "init_args": {
        "latency": {"class_path": "FBNetLatency", "init_args": {"device": "pixel3"}},
        "learning_rate": 0.5,
        "temperature_decay": 0.3,
        "steps_every": 2,
        "warmup": 1,
    },
}
STUDY = {
    "class_path": "SupernetStudy",
    "init_args": {
        "space": SPACE,
        "truth": TRUTH,
        "data": {
            "class_path": "ThreePartsDataModule",
            "init_args": {"data": DATA, "images": 224, "evaluation_images": 32},
        },
        "settings": {"epochs": 3},
        "build": BUILD,
        "affine": True,
        "methods": {
            "pixel3": {"sampler": SAMPLER, "found": 2},
            "landmarks": {
                "sampler": SAMPLER,
                "landmarks": {"warmup": 1, "penalty": "softplus_beta5"},
                "landmarks_from": {"count": 3},
                "found": 2,
            },
        },
        "measured": 2,
        "threads": 1,
    },
}


@pytest.fixture(scope="module", autouse=True)
def no_wandb():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        yield


def run(place, name, content, *words):
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["run", str(path), "--quiet", "--runs", str(place / "runs"), *words]) == 0
    (folder,) = (place / "runs").glob(f"{name}*/latest")
    return folder, json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    return run(tmp_path_factory.mktemp("fbnet"), "fbnet", STUDY)


def test_a_study_finds_architectures_with_and_without_landmarks(studied):
    folder, summary = studied
    for method in summary["methods"].values():
        (found,) = method["found"]
        assert len(found["architectures"]) == 2 and all(score is not None for score in found["stand_alone"])
        assert all(FBNet([1, 2]).parse(text) for text in found["architectures"])
    # Landmarks weigh in behind the warm-up of one epoch.
    history = {name: read_outcome(checkpoint_of(folder, f"{name}-0")).history for name in summary["methods"]}
    assert ["landmark_penalty" in epoch for epoch in history["landmarks"]] == [False, True, True]
    losses = {name: [epoch["loss"] for epoch in epochs] for name, epochs in history.items()}
    assert losses["landmarks"][0] == losses["pixel3"][0] and losses["landmarks"][2] != losses["pixel3"][2]


def test_every_agent_searches_on_its_supernet_and_by_training(studied, tmp_path):
    folder, _ = studied
    shared = {"class_path": "SharedWeightsTask", "init_args": {"run": str(folder), "method": "pixel3", "images": 8}}
    agents = [
        name
        for name, found in find_classes("search.agents", Agent).items()
        if not (issubclass(found, Halving) or found.demands)
    ]
    assert len(agents) >= 9  # those that train in part first ask for fidelities, which shared weights have not
    content = {
        "space": SPACE,
        "targets": {"supernet": shared, "trained": TRUTH},
        "agents": {name.lower(): name for name in agents},
        "attributes": {"latency": {"class_path": "FBNetLatency", "init_args": {"device": "fpga"}}},
        "budget": 2,
    }
    _, summary = run(tmp_path, "agents", content, "--tiny")
    for target in ("supernet", "trained"):
        found = summary["targets"][target]["agents"]
        assert set(found) == set(content["agents"])
        assert all(agent["failed"] == 0 and agent["evaluations"] == 2 for agent in found.values())


def test_a_network_is_trained_and_exported(tmp_path):
    content = {"space": SPACE, "targets": {"digits": TRUTH}, "agents": {"random": "RandomSearch"}, "budget": 1}
    folder, _ = run(tmp_path, "search", content)
    architecture = FBNet([1, 2]).format((2, 8, 5))  # wide, a skip that changes the shape, and groups
    assert main(["train", str(folder), "--architecture", architecture, "--quiet"]) == 0
    (trained,) = (folder / "trained").iterdir()
    assert main(["export", str(trained)]) == 0
    network, images = load_network(trained), torch.rand(3, 1, 8, 8)
    path = str(Path(trained, "network.onnx"))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        ours = network(images)
    assert (ours - torch.from_numpy(logits)).abs().max() <= 1e-4 * ours.abs().max()
