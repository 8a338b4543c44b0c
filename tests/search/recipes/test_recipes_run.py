"""Every recipe that ships is checked at full size and run at toy size, through the command line."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from search.cli import main
from search.listeners.wandb.sweep import numbers
from search.recipes.recipe import RECIPES, load_recipe, read_recipe
from search.tables.table import find_table

pytestmark = pytest.mark.data

FILES = sorted(RECIPES.glob("**/*.yaml"))
SWEEPS = [yaml.safe_load(path.read_text()) for path in sorted(RECIPES.glob("**/*.sweep.yml"))]
TRAINED = {"TrainedTask", "SubtaskPool"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What $CATCHMARK_DATA has, with stand-ins for large data sets."""
    known = os.environ.get("CATCHMARK_DATA")
    whole = tmp_path_factory.mktemp("data")
    for path in Path(known).iterdir() if known else ():
        (whole / path.name).symlink_to(path.resolve())
    make_stand_ins(whole)
    return whole


def make_stand_ins(folder: Path) -> None:
    """A few pictures in the place of each large data set that is not there."""
    if not (folder / "imagenet").exists():
        for k in range(208):
            split = "train" if k < 200 else "val"
            save(Image.effect_noise((48, 48), 40).convert("RGB"), folder / "imagenet" / split / f"class{k % 2}/{k}.png")
    if not (folder / "coco").exists() and (folder / "images/coco_tiny").is_dir():
        (folder / "coco").symlink_to((folder / "images/coco_tiny").resolve())
    if not (folder / "cityscapes").exists():
        for k in range(10):
            place = f"{'train' if k < 8 else 'val'}/town/town_00000{k}_000019"
            labels = Image.effect_noise((128, 64), 40).point([value % 19 for value in range(256)])
            save(labels, folder / "cityscapes/gtFine" / f"{place}_gtFine_labelTrainIds.png")
            save(labels.convert("RGB"), folder / "cityscapes/leftImg8bit" / f"{place}_leftImg8bit.png")


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture into a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture(autouse=True)
def data_folder(monkeypatch, tmp_path, data):
    monkeypatch.setenv("CATCHMARK_DATA", str(data))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)


def values(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a recipe with its path; what stands in lists has the list's path."""
    yield path, node
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from values(value, (*path, str(key)))
    for value in node if isinstance(node, list) else ():
        yield from ((path, each) for _, each in values(value))


def skip_without_data(recipe: dict[str, Any]) -> None:
    for where, value in values(recipe):
        if isinstance(value, str) and value.endswith(".npz"):
            try:
                find_table(value)
            except FileNotFoundError as error:
                pytest.skip(str(error))
        if where[-1:] == ("root",) and not Path(os.environ["CATCHMARK_DATA"], value).is_dir():
            pytest.skip(f"the folder of images '{value}' is not in $CATCHMARK_DATA")
        if value == "SurrogateTask" and not Path(os.environ["CATCHMARK_DATA"], "nasbench301_surrogate").is_dir():
            pytest.skip("the surrogate's folder nasbench301_surrogate is not in $CATCHMARK_DATA")


SAMPLERS: dict[str, dict[str, Any]] = {
    "UniformSampler": {"population": 3, "tournament": 2, "budget": 4},
    "RandomNASSampler": {"candidates": 3},
    "GumbelSampler": {"candidates": 10, "ranked": 3},
    "NAOSampler": {
        "warmup": 1,
        "seed_architectures": 4,
        "new": 2,
        "keep": 3,
        "random": 2,
        "step_sizes": 2,
        "predictor_epochs": 2,
    },
    "SETNSampler": {"candidates": 3},
    "ENASSampler": {"steps": 1, "aggregate": 2, "candidates": 3},
    "DARTSSampler": {},
}
"""What makes the choice of a path sampler cheap, by its class: a new sampler that takes long needs a line."""


def smaller_images(data: dict[str, Any]) -> dict[str, Any]:
    """A data module of few or small images."""
    scenes = {"scenes": 40, "val_scenes": 8}
    few = {"images": 8, "val_images": 2, "num_workers": 0, "batch_size": 2}
    small: dict[str, dict[str, Any]] = {
        "DepthFolderDataModule": {"resolution": 32, "images": 48, "val_images": 8},
        "ImageFolderDataModule": {"resolution": 32, "threads": 1, "num_workers": 0},
        "CocoDataModule": few | {"resolution": [96, 64]},
        "CamVidDataModule": few | {"crop": [64, 96]},
        "CityscapesDataModule": few | {"resolution": [128, 64], "crop": [64, 64]},
        "DigitScenesClassification": scenes,
        "DigitScenesDetection": scenes,
        "DigitScenesSegmentation": scenes,
    }
    return data | {
        "init_args": data.get("init_args", {}) | {"batch_size": 8} | small.get(data["class_path"], {}),
    }


def toy_study(values: dict[str, Any]) -> dict[str, str]:
    """What to replace in a study of supernets."""
    methods = {}
    for name, method in values["methods"].items():
        sampler = method["sampler"] if isinstance(method["sampler"], dict) else {"class_path": method["sampler"]}
        arguments = (sampler.get("init_args") or {}) | SAMPLERS[sampler["class_path"]]
        small: dict[str, Any] = {"sampler": {"class_path": sampler["class_path"], "init_args": arguments}, "found": 2}
        if method.get("landmarks"):
            small["landmarks"] = method["landmarks"] | {"warmup": 1}
            count = {
                "count": 4,
                "iterations": min(2, method.get("landmarks_from", {}).get("iterations", 1)),
                "added": 2,
            }
            small["landmarks_from"] = method.get("landmarks_from", {}) | count
        methods[name] = method | small | {"settings": None, "build": None}
    build = values.get("build") or {}
    replaced = {
        "methods": methods,
        "settings": {"epochs": 3},
        "build": build
        | {key: {"cells": 3 if values["space"] == "DARTS" else 1, "channels": 8}.get(key, build[key]) for key in build},
        "measured": 4,
        "measurements": 1,
        "trials": 1,
        "workers": 1,
        "threads": 1,
        "trainer": {"limit_train_batches": 2},
    }
    data = values["data"]["init_args"]
    images = smaller_images(data["data"])
    few = {"data": images, "evaluation_images": 8, "images": 40, "held_out_share": 0.5}
    replaced["data"] = values["data"] | {"init_args": data | few}
    if isinstance(values["truth"], dict) and values["truth"]["class_path"] in TRAINED:
        truth = values["truth"]["init_args"]
        less = {"epochs": 1, "trainer": {"limit_train_batches": 2, "limit_val_batches": 1}, "build": replaced["build"]}
        if truth.get("score", "val_accuracy") == "val_accuracy":
            less["score"] = "val_loss"  # of so few images networks get equally many right, and landmarks must differ
        module = as_class(truth.get("module") or "ClassificationModule")
        if "warmup_epochs" in module["init_args"]:
            less["module"] = module | {"init_args": module["init_args"] | {"warmup_epochs": 0}}
        replaced["truth"] = values["truth"] | {"init_args": truth | less | {"data": smaller_images(truth["data"])}}
    return {key: json.dumps(value) for key, value in replaced.items()}


def as_class(value: str | dict[str, Any]) -> dict[str, Any]:
    """The long way to name a class."""
    return {"class_path": value, "init_args": {}} if isinstance(value, str) else {"init_args": {}} | value


def toy_size(recipe: dict[str, Any]) -> dict[str, str]:
    """What to replace, by dotted key, so that a recipe takes seconds and still walks every path that it has.

    A search opens with 5 random networks by default; the sixth is the first that its agent has learned to choose.
    """
    if "class_path" in recipe:
        return toy_study(recipe["init_args"])
    small: dict[str, Any] = {"budget": 6, "trials": min(recipe.get("trials", 1), 2)}
    if recipe.get("meta_training"):
        small |= {"meta_training.epochs": 2, "meta_training.networks": 6, "meta_training.trials": 1}
    if "faster_rcnn" in json.dumps(recipe):
        # A whole detector takes a second an evaluation: two of them do.
        small |= {"budget": 2, "meta_training.networks": 2}
    if recipe.get("meta_training_for"):
        few = {"epochs": 2, "networks": 6, "trials": 1}
        small["meta_training_for"] = {
            target: [training | few for training in trainings]
            for target, trainings in recipe["meta_training_for"].items()
        }
    for path, value in values(recipe):
        if isinstance(value, dict) and value.get("class_path") == "MeasuredLatencyTask":
            once = {"resolution": 64, "device": "cpu", "warmup": 1, "repeats": 1, "rounds": 1}
            small |= {".".join([*path, "init_args", key]): number for key, number in once.items()}
        if isinstance(value, dict) and str(value.get("class_path")).rpartition(".")[2] in TRAINED:
            below = ".".join([*path, "init_args"])
            build = (value.get("init_args") or {}).get("build") or {}
            small["trials"] = 1
            small[f"{below}.epochs"] = 1
            arguments = value.get("init_args") or {}
            small[f"{below}.data"] = smaller_images(as_class(arguments["data"]))
            module = as_class(arguments.get("module") or "ClassificationModule")
            if module["class_path"] in ("DetectionModule", "SegmentationModule"):
                # A warm-up of hundreds of iterations would not fit into two.
                less: dict[str, Any] = {"schedule": {"shape": "constant", "warmup": 0.0}}
                if module["init_args"].get("detector") == "faster_rcnn":
                    less["overrides"] = {
                        "neck": {"out_channels": 16},
                        "roi_head": {"bbox_head": {"fc_out_channels": 16}},
                    }
                small[f"{below}.module"] = module | {"init_args": module["init_args"] | less}
            elif "warmup_epochs" in module["init_args"]:
                small[f"{below}.module"] = module | {"init_args": module["init_args"] | {"warmup_epochs": 0}}
            if "Residual" in str(recipe["space"]):
                build = build | {"width": 0.25}
            small[f"{below}.build"] = build | {key: {"cells": 1, "channels": 4}.get(key, build[key]) for key in build}
            small[f"{below}.trainer"] = {"limit_train_batches": 2, "limit_val_batches": 1}
            if "SubtaskPool" in value["class_path"]:
                small |= {f"{below}.resolutions": [8], f"{below}.examples_per_class": 8}
    return {key: json.dumps(value) for key, value in small.items()}


def test_there_are_recipes():
    assert {RECIPES / "quickstart.yaml", RECIPES / "quickstart_table.yaml"} <= set(FILES)
    assert {RECIPES.parent / sweep["command"][3] for sweep in SWEEPS} <= set(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_at_full_size(path, capsys):
    recipe = read_recipe(path)
    description = recipe.get("init_args", recipe).get("description", "")
    assert len(str(description)) >= 20, f"{path.name}: say in 'description' what the recipe shows"
    skip_without_data(recipe)
    experiment, resolved = load_recipe(path)
    assert experiment.name == path.stem
    planned = experiment.planned()
    assert all(evaluations > 0 for evaluations in planned.values())
    assert main(["run", str(path), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == yaml.safe_load(resolved)
    assert f"# in all: {sum(planned.values())} {experiment.unit}" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_at_toy_size(path, tmp_path):
    recipe = read_recipe(path)
    skip_without_data(recipe)
    small = toy_size(recipe)
    overrides = [word for key, value in small.items() for word in (f"--{key}", value)]
    assert main(["run", str(path), "--quiet", "--runs", str(tmp_path / "runs"), *overrides]) == 0
    folder = tmp_path / "runs" / path.stem / "latest"
    summary = json.loads((folder / "summary.json").read_text())
    assert {sweep["metric"]["name"] for sweep in SWEEPS if str(path).endswith(sweep["command"][3])} <= set(
        numbers(summary)
    )
    if "class_path" in recipe:
        assert list(summary["methods"]) == list(recipe["init_args"]["methods"])
        for method in summary["methods"].values():
            assert method["trials"] == 1 and len(method["found"][0]["architectures"]) >= 1
        page = (folder / "report.html").read_text()
        assert all(name in page for name in summary["methods"])
        return
    assert list(summary["targets"]) == list(recipe["targets"])
    for target in summary["targets"].values():
        assert list(target["agents"]) == list(recipe["agents"])
        for agent in target["agents"].values():
            assert (agent["evaluations"], agent["trials"]) == (int(small["budget"]), int(small["trials"]))
            # A network whose latency was never measured on a device is a failed evaluation, and rightly so; as is one
            # of 45 blocks that is validated after two steps, with statistics that have hardly begun.
            assert agent["failed"] == 0 or "LatencyRewardTask" in path.read_text() or path.stem == "cross_domain"
            assert agent["best"]["score"] is not None
    meta_trained = list((recipe.get("meta_training") or {"agents": []})["agents"])
    for target, trainings in (recipe.get("meta_training_for") or {}).items():
        place = "" if target == "all" else f" for {target}"
        meta_trained += [f"{agent}{place}" for training in trainings for agent in training["agents"]]
    assert sorted(summary["meta_training"]) == sorted(meta_trained)
    for agent in summary["meta_training"].values():
        assert agent["evaluations"] == 2 * int(small["budget"])
        assert agent["failed"] == 0 or path.stem == "cross_domain"
    page = (folder / "report.html").read_text()
    assert all(name in page for name in [*recipe["targets"], *recipe["agents"]])


def test_the_table_of_the_quickstart_shows_a_difference_and_not_a_tie(tmp_path, monkeypatch):
    """At a fifth of its trials, which is less to go by than a reader of the whole has."""
    monkeypatch.delenv("CATCHMARK_DATA")
    recipe, fewer = RECIPES / "quickstart_table.yaml", ("--trials", "20", "--meta_training.trials", "20")
    assert main(["run", str(recipe), "--quiet", "--runs", str(tmp_path / "runs"), *fewer]) == 0
    folder = tmp_path / "runs" / "quickstart_table" / "latest"
    said = re.search(r"bayes_meta is ahead of ([a-z_, ]+) \(Mann-Whitney U tests", (folder / "report.html").read_text())
    assert said and {"evolution", "random"} <= set(re.split(r", | and ", said[1]))
    practised = json.loads((folder / "summary.json").read_text())["meta_training"]
    assert {name: agent["source_evaluations"] for name, agent in practised.items()} == {
        "naive_transfer": 50,
        "bayes_meta": 50,
    }
