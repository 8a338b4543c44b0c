"""Auto-DeepLab's and CAS's spaces in whole runs: searched, searched on, trained, and exported."""

import json

import onnxruntime
import pytest
import torch
import yaml

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")

from search.cli import main
from search.deploy import load_network
from search.recipes.build import build as build_part
from search.spaces.auto_deeplab import AutoDeepLab
from search.spaces.base import SearchSpace
from search.spaces.cas import CASMultiScale
from search.studies.supernet_job import checkpoint_of, read_outcome

SPACE = {"class_path": "AutoDeepLab", "init_args": {"layers": 2, "blocks": 1}}
BUILD = {"filters": 2, "stem_channels": 3, "head_channels": 4}
DATA = {
    "class_path": "DigitScenesSegmentation",
    "init_args": {"scenes": 24, "val_scenes": 4, "size": 32, "batch_size": 4},
}
FEW = {"limit_train_batches": 2, "limit_val_batches": 1}
SCORE = {"score": "val_miou", "threads": 1, "trainer": FEW, "module": "PixelClassificationModule", "epochs": 1}
TRUTH = {"class_path": "TrainedTask", "init_args": {"data": DATA, "build": BUILD, **SCORE}}
SAMPLER = {"class_path": "DARTSSampler", "init_args": {"learning_rate": 0.5, "warmup": 1}}
STUDY = {
    "class_path": "SupernetStudy",
    "init_args": {
        "space": SPACE,
        "truth": TRUTH,
        "data": {"class_path": "ThreePartsDataModule", "init_args": {"data": DATA, "evaluation_images": 4}},
        "objective": "SegmentationObjective",
        "settings": {"epochs": 3},
        "build": BUILD,
        "methods": {
            "relaxed": {
                "sampler": SAMPLER,
                "landmarks": {"warmup": 1, "penalty": "softplus_beta5"},
                "landmarks_from": {"count": 2},
                "found": 2,
            },
            "gdas": {"sampler": {"class_path": "GumbelSampler", "init_args": {"candidates": 20}}, "found": 2},
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


def run(place, name, content):
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["run", str(path), "--quiet", "--runs", str(place / "runs")]) == 0
    (folder,) = (place / "runs").glob(f"{name}*/latest")
    return folder, json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    return run(tmp_path_factory.mktemp("auto_deeplab"), "auto_deeplab", STUDY)


def test_a_study_finds_architectures_and_draws_them_on_a_trellis(studied):
    folder, summary = studied
    space = AutoDeepLab(2, 1)
    for method in summary["methods"].values():
        (found,) = method["found"]
        assert len(found["architectures"]) == 2 and all(score is not None for score in found["stand_alone"])
        for arch in map(space.parse, found["architectures"]):
            assert "zero" not in space.format(arch) and arch[2] < arch[3]
    history = read_outcome(checkpoint_of(folder, "relaxed-0")).history
    assert ["landmark_penalty" in epoch for epoch in history] == [False, True, True]
    page = (folder / "report.html").read_text()
    assert "2 /16" in page and "stem to 1 /" in page  # a place that may not be taken, and the picture in words


def test_agents_search_with_its_weights(studied, tmp_path):
    folder, _ = studied
    shared = {"class_path": "SharedWeightsTask", "init_args": {"run": str(folder), "method": "gdas", "images": 4}}
    agents = ["RandomSearch", "RegularizedEvolution", "Reinforce", "LocalSearch"]
    content = {
        "space": SPACE,
        "targets": {"supernet": shared},
        "agents": {name.lower(): name for name in agents},
        "budget": 3,
    }
    _, summary = run(tmp_path, "agents", content)
    for agent in summary["targets"]["supernet"]["agents"].values():
        assert agent["failed"] == 0 and agent["evaluations"] == 3


@pytest.mark.parametrize(
    ("space", "build", "architecture", "form"),
    [
        # Down and up, with what looks different when it goes down: atrous convolutions, skips and pooling.
        (SPACE | {"init_args": {"layers": 2, "blocks": 2}}, BUILD, (0, 2, 0, 1, 7, 3, 1, 2, 2, 4), "onnx"),
        (
            {"class_path": "CASMultiScale", "init_args": CASMultiScale.toy()},
            {"channels": 2, "cells": 1, "stages": 2, "head_channels": 8},
            (0, 6, 1, 1, 3, 0, 2, 5, 4, 3, 2, 6),
            "torch",
        ),
    ],
    ids=["auto_deeplab", "cas"],
)
def test_a_network_is_trained_and_exported(space, build, architecture, form, tmp_path):
    truth = {"class_path": "TrainedTask", "init_args": {"data": DATA, "build": build, **SCORE}}
    content = {"space": space, "targets": {"scenes": truth}, "agents": {"random": "RandomSearch"}, "budget": 1}
    folder, _ = run(tmp_path, "search", content)
    made = build_part(space, SearchSpace, "space")
    assert main(["train", str(folder), "--architecture", made.format(architecture), "--quiet"]) == 0
    (trained,) = (folder / "trained").iterdir()
    assert main(["export", str(trained), "--format", form]) == 0
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        ours = load_network(trained)(images)
        if form == "torch":
            output = torch.export.load(trained / "network.pt2").module()(images)
        else:
            session = onnxruntime.InferenceSession(str(trained / "network.onnx"), providers=["CPUExecutionProvider"])
            output = torch.from_numpy(session.run(["output"], {"images": images.numpy()})[0])
    assert ours.shape == (3, 11, 32, 32)
    assert (ours - output).abs().max() <= 1e-4 * ours.abs().max()
