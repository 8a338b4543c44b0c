"""From a folder of pictures to a program without catchmark, by the commands, with the same answers at the end."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from datamodules.digits import load_digits_arrays
from search.cli import main
from search.recipes.yaml_text import dump_yaml

DATA = {
    "class_path": "ImageFolderDataModule",
    "init_args": {"root": "digits", "resolution": 8, "batch_size": 50},
}
TASK = {
    "class_path": "TrainedTask",
    "init_args": {
        "data": DATA,
        "epochs": 3,
        "build": {"channels": 4, "cells": 1},
        "threads": 1,
        "trainer": {"accelerator": "cpu"},
    },
}
WITHOUT_US = "assert not {'torch', 'search', 'datamodules', 'lightning_modules'} & set(sys.modules)"


@pytest.fixture
def digits(tmp_path):
    """Scikit-learn's digits as PNG files, a folder a class: 300 to train on, 100 to choose by, 150 to test."""
    arrays = load_digits_arrays(16)
    parts = {
        "train": (arrays.train_images[::4], arrays.train_labels[::4]),
        "val": (arrays.val_images[::6], arrays.val_labels[::6]),
        "test": (arrays.val_images[1::4], arrays.val_labels[1::4]),
    }
    for split, (images, labels) in parts.items():
        for k, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = tmp_path / "digits" / split / f"number {label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(place / f"{k:03d}.png")
    return tmp_path / "digits"


def test_pictures_to_a_program(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    recipe = {"space": "NASBench201", "agents": {"random": "RandomSearch"}, "budget": 2, "targets": {"digits": TASK}}
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe))
    assert main(["run", "recipe.yaml", "--quiet"]) == 0
    run = "runs/recipe/latest"
    assert main(["train", run, "--quiet"]) == 0
    about = json.loads((tmp_path / run / "trained" / "digits" / "network.json").read_text())
    files = sorted((digits / "test").rglob("*.png"))
    truth = [file.parent.name for file in files]
    assert about["test"]["images"] == len(files) and about["classes"] == [f"number {k}" for k in range(10)]
    hits = about["test"]["metrics"]["test_accuracy"] * len(files) / 100
    assert hits == pytest.approx(round(hits), abs=1e-3) and hits > 0.15 * len(files)  # it has learned something

    assert main(["predict", run, str(digits / "test"), "--out", "answers"]) == 0
    answers = json.loads((tmp_path / "answers" / "predictions.json").read_text())
    predicted = [answer["found"][0]["class"] for answer in answers]
    assert [answer["picture"] for answer in answers] == [str(file) for file in files]
    assert sum(a == b for a, b in zip(predicted, truth, strict=True)) == round(hits)

    capsys.readouterr()
    assert main(["export", run, "--with-preprocessing"]) == 0
    out = capsys.readouterr().out
    assert "with 1 and 3 at a time" in out
    session = onnxruntime.InferenceSession(f"{run}/trained/digits/network.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("pictures", "tensor(uint8)", ["batch", 8, 8, 3])
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == about["classes"] and (said["resize"], said["colours"]) == ("centre", "RGB")
    assert (json.loads(said["size"]), json.loads(said["scale"]), said["normalised"]) == ([8, 8], 255.0, "by the file")
    lines = out.split("\n\n", 1)[1].replace('"picture.png"', "file").splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("picture = "))
    loop = ["for file in sys.argv[1:]:", *(f"    {line}" for line in lines[first:])]
    script = tmp_path / "elsewhere.py"
    script.write_text("\n".join(["import sys", *lines[:first], *loop, WITHOUT_US]))
    done = subprocess.run(
        [sys.executable, "-I", str(script), *map(str, files)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == predicted
    assert len(np.unique(predicted)) > 1
