"""GDAS' spaces in whole runs: searched with shared weights, trained, and exported."""

import json

import onnxruntime
import pytest
import torch
import yaml

from search.cli import main
from search.deploy import load_network
from search.spaces.gdas import PUBLISHED_FRC, FixedReduction
from search.spaces.recurrent import RecurrentCells

TEXT = {"class_path": "TextDataModule", "init_args": {"characters": 1200, "length": 5, "batch_size": 8}}
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}
STUDY = {
    "class_path": "SupernetStudy",
    "init_args": {
        "space": {"class_path": "RecurrentCells", "init_args": {"nodes": 2}},
        "truth": {
            "class_path": "TrainedTask",
            "init_args": {
                "data": TEXT,
                "module": {"class_path": "LanguageModule", "init_args": {"learning_rate": 0.01, "optimizer": ADAM}},
                "epochs": 1,
                "build": {"hidden": 6, "dropout": {"inputs": 0.1}},
                "score": "val_negative_perplexity",
                "objectives": {"val_perplexity": "min"},
                "threads": 1,
            },
        },
        "data": {"class_path": "ThreePartsDataModule", "init_args": {"data": TEXT, "evaluation_images": 10}},
        "objective": "LanguageObjective",
        "settings": {"epochs": 2},
        "build": {"hidden": 6},
        "methods": {
            "gdas": {"sampler": {"class_path": "GDASSampler", "init_args": {"learning_rate": 0.5}}, "found": 2}
        },
        "measured": 2,
        "threads": 1,
    },
}
DIGITS = {
    "space": "FixedReduction",
    "targets": {
        "digits": {
            "class_path": "TrainedTask",
            "init_args": {
                "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 16}},
                "module": {"class_path": "ClassificationModule", "init_args": {"drop_path": 0.2}},
                "epochs": 2,
                "build": {"channels": 4, "cells": 3, "auxiliary": True},
                "trainer": {"limit_train_batches": 2, "limit_val_batches": 1},
                "threads": 1,
            },
        }
    },
    "agents": {"random": "RandomSearch"},
    "budget": 1,
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
    folder = place / "runs" / name / "latest"
    return folder, json.loads((folder / "summary.json").read_text())


def close(ours, theirs):
    return (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()


def test_a_recurrent_cell_is_found_trained_and_exported(tmp_path):
    folder, summary = run(tmp_path, "text", STUDY)
    (found,) = summary["methods"]["gdas"]["found"]
    assert len(found["architectures"]) == 2 and all(score < -1 for score in found["stand_alone"])
    text = found["architectures"][0]
    assert RecurrentCells(2).format(RecurrentCells(2).parse(text)) == text
    task = STUDY["init_args"]["truth"]["init_args"]
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({"class_path": "TrainedTask", "init_args": task}))
    words = ["--architecture", text, "--task", str(tmp_path / "task.yaml"), "--quiet"]
    assert main(["train", str(folder), *words]) == 0
    (trained,) = (folder / "trained").iterdir()
    assert main(["export", str(trained)]) == 0
    words = torch.arange(15).view(3, 5)
    session = onnxruntime.InferenceSession(str(trained / "network.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"words": words.numpy()})
    with torch.no_grad():
        ours = load_network(trained)(words)
    assert ours.shape[:2] == (3, 5) and close(ours, torch.from_numpy(logits))


def test_a_network_with_an_auxiliary_head_is_trained_and_exported_without_it(tmp_path):
    folder, _ = run(tmp_path, "digits", DIGITS)
    assert FixedReduction().parse(PUBLISHED_FRC["GDAS_F1"])
    assert main(["train", str(folder), "--architecture", PUBLISHED_FRC["GDAS_F1"], "--quiet"]) == 0
    (trained,) = (folder / "trained").iterdir()
    assert main(["export", str(trained), "--format", "torch"]) == 0
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        ours, theirs = load_network(trained)(images), torch.export.load(trained / "network.pt2").module()(images)
    assert ours.shape == (3, 10) and close(ours, theirs)
