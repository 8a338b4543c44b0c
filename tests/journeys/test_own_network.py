"""A network of one's own: trained as a supernet, searched on, trained alone, and exported."""

import json
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
import yaml

from lightning_modules.networks.choices import ChoiceModule, cut_weights
from search.cli import main
from search.deploy import load_network
from search.recipes.recipe import load_recipe
from search.studies.supernet_job import checkpoint_of

OWN = """
from torch import nn
from lightning_modules.networks.choices import Choice, DepthChoice, ElasticConv2d, ElasticLinear, OperationChoice


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = OperationChoice({"k3": ElasticConv2d(width, width, 3), "k1": ElasticConv2d(width, width, 1)})

    def forward(self, x):
        return x + self.layer(x).relu()


class MyNetwork(nn.Module):
    def __init__(self, num_classes: int = 10, in_channels: int = 3):
        super().__init__()
        width = Choice([4, 8], name="width")
        self.stem = ElasticConv2d(in_channels, width, 3)
        self.blocks = DepthChoice([Block(width), Block(width)])
        self.classifier = ElasticLinear(width, num_classes)

    def forward(self, images):
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))
"""
SPACE = {"class_path": "ModuleSpace", "init_args": {"network": {"class_path": "my_own_network.MyNetwork"}}}
DATA = {"class_path": "DigitsDataModule", "init_args": {"batch_size": 32}}
FEW = {"limit_train_batches": 3, "limit_val_batches": 1}
TRAINED = {"class_path": "TrainedTask", "init_args": {"data": DATA, "epochs": 1, "threads": 1, "trainer": FEW}}
STUDY = {
    "class_path": "SupernetStudy",
    "init_args": {
        "space": SPACE,
        "truth": TRAINED,
        "data": {
            "class_path": "ThreePartsDataModule",
            "init_args": {"data": DATA, "images": 224, "evaluation_images": 32},
        },
        "settings": {"epochs": 1},
        "affine": True,
        "methods": {
            "sandwich": {
                "sampler": {
                    "class_path": "SandwichSampler",
                    "init_args": {"random": 1, "population": 3, "tournament": 2, "budget": 4},
                },
                "found": 2,
            }
        },
        "measured": 2,
        "threads": 1,
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_own_network.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield folder
    sys.modules.pop("my_own_network", None)


def run(place, name, content, *words):
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["run", str(path), "--quiet", "--runs", str(place / "runs"), *words]) == 0
    return place / "runs" / name / "latest"


@pytest.fixture(scope="module")
def studied(place):
    return run(place, "study", STUDY)


def test_the_whole_way_from_a_network_to_a_file(place, studied):
    summary = json.loads((studied / "summary.json").read_text())
    (found,) = summary["methods"]["sandwich"]["found"]
    assert len(found["architectures"]) == 2 and all(score is not None for score in found["stand_alone"])
    shared = {"class_path": "SharedWeightsTask", "init_args": {"run": str(studied), "method": "sandwich", "images": 16}}
    content = {
        "space": SPACE,
        "targets": {"supernet": shared, "digits": TRAINED},
        "agents": {"evolution": "RegularizedEvolution"},
        "budget": 3,
    }
    search = run(place, "search", content, "--trust", "my_own_network")  # the study's folder is data
    found = json.loads((search / "summary.json").read_text())["targets"]
    assert all(found[name]["agents"]["evolution"]["failed"] == 0 for name in ("supernet", "digits"))
    architecture = "width=8|blocks=2|blocks.0.layer=k1|blocks.1.layer=k3"
    words = ["--target", "digits", "--architecture", architecture, "--trust", "my_own_network", "--quiet"]
    assert main(["train", str(search), *words]) == 0
    (trained,) = (search / "trained").iterdir()
    assert main(["export", str(trained), "--trust", "my_own_network"]) == 0
    network, images = load_network(trained, trust="my_own_network"), torch.rand(3, 1, 8, 8)
    assert not any(isinstance(each, ChoiceModule) for each in network.modules())
    session = onnxruntime.InferenceSession(str(Path(trained, "network.onnx")), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        ours = network(images)
    assert (ours - torch.from_numpy(logits)).abs().max() <= 1e-4 * ours.abs().max()


def test_the_weights_of_an_architecture_are_taken_from_a_study(studied):
    study, _ = load_recipe(studied / "config.yaml")
    module = study.training.load_module(checkpoint_of(studied, "sandwich-0"), "sandwich")
    architecture = study.space.parse("width=4|blocks=1|blocks.0.layer=k3|blocks.1.layer=k3")
    network = study.space.build_from(architecture, study.head())
    network.load_state_dict(cut_weights(module.supernet, architecture))
    images, path = torch.rand(2, 1, 8, 8), module.sampler.path_of(architecture)
    assert torch.allclose(network(images), module.supernet(images, path), atol=1e-6)


def test_what_was_found_is_trained_on_from_the_weights_that_it_shared(place, studied):
    study, _ = load_recipe(studied / "config.yaml")
    module = study.training.load_module(checkpoint_of(studied, "sandwich-0"), "sandwich")
    still = {"class_path": "ClassificationModule", "init_args": {"learning_rate": 0.0}}
    task = {"class_path": "TrainedTask", "init_args": TRAINED["init_args"] | {"module": still}}
    (place / "still.yaml").write_text(yaml.safe_dump(task))
    words = ["--from-supernet", "sandwich", "--task", str(place / "still.yaml"), "--trust", "my_own_network"]
    assert main(["train", str(studied), *words, "--quiet"]) == 0
    about = json.loads((studied / "trained" / "chosen" / "network.json").read_text())
    assert about["start"]["fresh"] == [] and about["agent"] == "sandwich"
    images, labels = next(iter(study.truth.data.val_dataloader()))
    with torch.no_grad():  # no step has moved the weights, so the epoch's scores are the path's
        logits = module.supernet(images, module.sampler.path_of(study.space.parse(about["architecture"])))
    assert about["metrics"]["val_accuracy"] == (100.0 * (logits.argmax(1) == labels).sum() / len(labels)).item()
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert about["metrics"]["val_loss"] == pytest.approx(loss, rel=1e-6)  # a sum over images, by their number


def test_a_stranger_s_run_names_no_network(studied, capsys):
    assert main(["train", str(studied), "--architecture", "width=4|blocks=1|blocks.0.layer=k3|blocks.1.layer=k3"]) != 0
    assert "--trust my_own_network.MyNetwork" in capsys.readouterr().err
