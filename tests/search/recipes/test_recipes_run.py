"""Every recipe that ships is checked at full size and run at toy size, through the command line."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from search.cli import main
from search.listeners.wandb.sweep import numbers
from search.recipes.recipe import RECIPES, read_recipe
from search.recipes.tiny import NOTICE
from search.tables.table import find_table

pytestmark = pytest.mark.data

FILES = sorted(RECIPES.glob("**/*.yaml"))
COLUMNS, LATENCIES = ("cifar10_valid", "cifar100", "imagenet16_120"), "nasbench201_latency.npz"
SWEEPS = [yaml.safe_load(path.read_text()) for path in sorted(RECIPES.glob("**/*.sweep.yml"))]


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
    if not (folder / "imagenet100").exists():
        (folder / "imagenet100").symlink_to(folder / "imagenet")
    if not (folder / "coco").exists() and (folder / "images/coco_tiny").is_dir():
        (folder / "coco").symlink_to((folder / "images/coco_tiny").resolve())
    if not (folder / "kitti").exists():
        for k in range(60):
            drive, frame = divmod(k, 30)
            save(Image.effect_noise((50, 16), 40).convert("RGB"), folder / f"kitti/frames/drive_{drive}/{frame:04}.png")
    if not (folder / "penn").exists():
        (folder / "penn").mkdir()
        for part in ("train", "valid"):
            (folder / "penn" / f"ptb.{part}.txt").write_text("no word is of use\n" * 2000)
    if not (folder / "voc").exists():
        for k in range(10):
            place = f"{'train' if k < 8 else 'val'}/{k}.png"
            labels = Image.effect_noise((96, 64), 40).point([value % 21 for value in range(256)])
            save(labels, folder / "voc/labels" / place)
            save(labels.convert("RGB"), folder / "voc/images" / place)
    if not (folder / "cityscapes").exists():
        for k in range(10):
            place = f"{'train' if k < 8 else 'val'}/town/town_00000{k}_000019"
            labels = Image.effect_noise((128, 64), 40).point([value % 19 for value in range(256)])
            save(labels, folder / "cityscapes/gtFine" / f"{place}_gtFine_labelTrainIds.png")
            save(labels.convert("RGB"), folder / "cityscapes/leftImg8bit" / f"{place}_leftImg8bit.png")

    for name, sizes, several in (("ntu", (1920, 5632), False), ("mmimdb", (5056, 812), True)):
        if not (folder / f"{name}_features.npz").exists():
            save_features(folder / f"{name}_features.npz", sizes, several)


def save_features(path: Path, sizes: tuple[int, int], several: bool) -> None:
    """A table of features of two modalities, and labels."""
    rng, arrays = np.random.default_rng(0), {}
    for split in ("train", "val", "test"):
        for kind, size in zip(("first", "second"), sizes, strict=True):
            arrays[f"{kind}_{split}"] = rng.random((12, size), dtype=np.float32)
        arrays[f"y_{split}"] = rng.integers(0, 2, (12, 23)) if several else np.arange(12) % 3
    np.savez(path, **arrays)


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


def test_there_are_recipes():
    assert {RECIPES / "quickstart.yaml", RECIPES / "quickstart_table.yaml"} <= set(FILES)
    assert {RECIPES.parent / sweep["command"][3] for sweep in SWEEPS} <= set(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_at_full_size(path, capsys):
    recipe = read_recipe(path)
    description = recipe.get("init_args", recipe).get("description", "")
    assert len(str(description)) >= 20, f"{path.name}: say in 'description' what the recipe shows"
    skip_without_data(recipe)
    assert main(["run", str(path), "--dry-run"]) == 0  # loading takes seconds: once is enough
    text = capsys.readouterr().out
    resolved = yaml.safe_load(text)
    assert resolved.get("init_args", resolved)["description"] == description
    planned = {search: int(count) for search, count in re.findall(r"^# (.+?): (\d+) ", text, re.MULTILINE)}
    total = planned.pop("in all")
    assert planned and min(planned.values()) > 0 and sum(planned.values()) == total


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_at_toy_size(path, tmp_path):
    recipe = read_recipe(path)
    skip_without_data(recipe)
    assert main(["run", str(path), "--tiny", "--quiet", "--runs", str(tmp_path / "runs")]) == 0
    folder = tmp_path / "runs" / f"{path.stem}-tiny" / "latest"
    summary, page = json.loads((folder / "summary.json").read_text()), (folder / "report.html").read_text()
    small = yaml.safe_load((folder / "config.yaml").read_text())
    assert NOTICE in page and summary["description"].startswith(NOTICE)
    assert {sweep["metric"]["name"] for sweep in SWEEPS if str(path).endswith(sweep["command"][3])} <= set(
        numbers(summary)
    )
    if recipe.get("class_path") == "Ranking":
        assert summary["architectures"] == summary["planned"] <= 4 and len(summary["top"]) == 2
        named = [*recipe["init_args"]["attributes"], *recipe["init_args"].get("combinations", {})]
        assert list(summary["attributes"]) == named and all(name in page for name in named)
        assert all(entry["architectures"] for entry in summary["attributes"].values())
        return
    if "class_path" in recipe:
        assert list(summary["methods"]) == list(recipe["init_args"]["methods"])
        for method in summary["methods"].values():
            assert method["trials"] == 1 and len(method["found"][0]["architectures"]) >= 1
        assert all(name in page for name in summary["methods"])
        return
    assert small["budget"] <= 6 and small["trials"] <= 2
    targets = list(summary["targets"])
    assert targets == [name for name in recipe["targets"] if name in small["targets"]]
    assert len(targets) == len(recipe["targets"]) or len(targets) > 1
    for target in summary["targets"].values():
        assert list(target["agents"]) == list(recipe["agents"])
        for agent in target["agents"].values():
            assert (agent["evaluations"], agent["trials"]) == (small["budget"], small["trials"])
            # A network whose latency was never measured on a device is a failed evaluation, and rightly so; as is one
            # of 45 blocks that is validated after two steps, with statistics that have hardly begun.
            looked_up = any(name in path.read_text() for name in ("LatencyRewardTask", "TableLatency"))
            assert agent["failed"] == 0 or looked_up or path.stem == "cross_domain"
            assert agent["best"]["score"] is not None
    meta_trained = list((recipe.get("meta_training") or {"agents": []})["agents"])
    for target, trainings in (recipe.get("meta_training_for") or {}).items():
        if target not in (*targets, "all"):
            continue
        place = "" if target == "all" else f" for {target}"
        meta_trained += [f"{agent}{place}" for training in trainings for agent in training["agents"]]
    assert sorted(summary["meta_training"]) == sorted(meta_trained)
    for agent in summary["meta_training"].values():
        assert agent["evaluations"] == 2 * 6
        assert agent["failed"] == 0 or path.stem == "cross_domain"
    assert all(name in page for name in [*targets, *recipe["agents"]])


def test_of_targets_that_are_alike_two_are_searched_on_at_toy_size(tmp_path, capsys):
    """What differs in a name or a number is alike, what differs in a class or an argument is not."""
    column = {"table": "nasbench201.npz", "split": "val", "metric": "acc", "epochs": 200}
    terms = {"pixel3": "TableLatency", "raspi4": "TableLatency", "fpga": "TableLatency"}
    plain = {name: {"class_path": "TableTask", "init_args": column | {"dataset": name}} for name in COLUMNS}
    weighed = {
        name: {
            "class_path": "RewardTask",
            "init_args": {
                "task": plain["cifar100"],
                "terms": [{"class_path": term, "init_args": {"latency_table": LATENCIES, "device": name}}],
            },
        }
        for name, term in terms.items()
    }
    last = {
        "class_path": "TableTask",
        "init_args": column | {"dataset": "cifar10", "split": "test", "cost_seconds": 1.0},
    }
    targets = plain | weighed | {"another_argument": last}
    content = {"space": "NASBench201", "targets": targets, "agents": {"random": "RandomSearch"}}
    content["agents"]["naive"] = "NaiveTransfer"
    pool = {"class_path": "TablePool", "init_args": {"tasks": [column | {"dataset": "cifar100"}]}}
    content["meta_training_for"] = {name: [{"pool": pool, "agents": ["naive"]}] for name in targets}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert main(["run", str(tmp_path / "r.yaml"), "--tiny", "--dry-run"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    left = ["cifar10_valid", "cifar100", "pixel3", "raspi4", "another_argument"]
    assert list(resolved["targets"]) == list(resolved["meta_training_for"]) == left


def test_the_table_of_the_quickstart_shows_a_difference_and_not_a_tie(tmp_path, monkeypatch):
    """At a tenth of its trials, which is less to go by than a reader of the whole has."""
    monkeypatch.delenv("CATCHMARK_DATA")
    recipe, fewer = RECIPES / "quickstart_table.yaml", ("--trials", "10", "--meta_training.trials", "10")
    assert main(["run", str(recipe), "--quiet", "--runs", str(tmp_path / "runs"), *fewer]) == 0
    folder = tmp_path / "runs" / "quickstart_table" / "latest"
    said = re.search(r"bayes_meta is ahead of ([a-z_, ]+) \(Mann-Whitney U tests", (folder / "report.html").read_text())
    assert said and {"evolution", "random"} <= set(re.split(r", | and ", said[1]))
    practised = json.loads((folder / "summary.json").read_text())["meta_training"]
    assert {name: agent["source_evaluations"] for name, agent in practised.items()} == {
        "naive_transfer": 50,
        "bayes_meta": 50,
    }
