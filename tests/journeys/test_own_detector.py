"""Pictures with boxes and a config of mmdet, all one's own: searched, trained, asked about a picture, handed on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from search.cli import main
from search.deploy import load_network
from search.recipes.yaml_text import dump_yaml

pytest.importorskip("mmdet", reason="mmdet is not installed")

SIDES = (96, 64)
COLOURS = {"square": (230, 60, 40), "disc": (40, 90, 230)}
CONFIG = """
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
width = 16
model = dict(
    neck=dict(out_channels=width),
    bbox_head=dict(in_channels=width, feat_channels=width, stacked_convs=1),
    test_cfg=dict(score_thr=0.0, max_per_img=4),
)
"""
SPACE = {
    "class_path": "ResidualBackbone",
    "init_args": {
        "block_types": ["basicblock"],
        "base_channels": [4, 8],
        "depths": [8],
        "stages": [4],
        "blocks_per_stage": [1, 2, 3],
        "doublings": [3],
    },
}
DATA = {
    "class_path": "CocoDataModule",
    "init_args": {
        "root": "toys",
        "resolution": list(SIDES),
        "batch_size": 2,
        "train_annotations": "train.json",
        "val_annotations": "val.json",
        "train_folder": "train",
        "val_folder": "val",
    },
}
TASK = {
    "class_path": "TrainedTask",
    "init_args": {
        "data": DATA,
        "module": {
            "class_path": "DetectionModule",
            "init_args": {"detector": "my_detector.py", "schedule": {"shape": "cosine", "warmup": 0.1}},
        },
        "epochs": 1,
        "score": "val_map",
        "score_name": "mAP (%)",
        "threads": 1,
        "trainer": {"accelerator": "cpu"},
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A config, a recipe, and four pictures a split with a square and a disc each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        place, images, annotations = Path("toys", split), [], []
        place.mkdir(parents=True)
        for number in range(4):
            picture = Image.new("RGB", SIDES, (225, 225, 220))
            images.append({"id": number, "file_name": f"{number}.png", "width": SIDES[0], "height": SIDES[1]})
            for label, (name, colour) in enumerate(COLOURS.items()):
                side = int(rng.integers(20, 32))
                left, top = 48 * label + int(rng.integers(0, 16)), int(rng.integers(0, SIDES[1] - side))
                pen = ImageDraw.Draw(picture)
                (pen.rectangle if name == "square" else pen.ellipse)((left, top, left + side, top + side), fill=colour)
                about = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1}
                annotations.append(about | {"bbox": [left, top, side, side], "area": side * side, "iscrowd": 0})
            picture.save(place / f"{number}.png")
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(COLOURS)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        Path("toys", f"{split}.json").write_text(json.dumps(content))
    Path("my_detector.py").write_text(CONFIG)
    recipe = {"space": SPACE, "targets": {"toys": TASK}, "agents": {"random": "RandomSearch"}, "budget": 2}
    Path("toys.yaml").write_text(dump_yaml(recipe))
    return tmp_path


def test_from_a_config_to_boxes_on_a_picture(folder, capsys):
    assert main(["run", "toys.yaml", "--quiet"]) == 0
    run = "runs/toys/latest"
    found = json.loads(Path(run, "summary.json").read_text())["targets"]["toys"]["agents"]["random"]
    assert found["evaluations"] == 2 and found["failed"] == 0
    assert main(["train", run, "--quiet", "--epochs", "2"]) == 2  # a config is a program, and a run's folder names it
    assert "--trust my_detector.py" in capsys.readouterr().err
    trust = ["--trust", "my_detector.py"]
    assert main(["train", run, "--quiet", "--epochs", "2", *trust]) == 0
    picture = "toys/val/1.png"
    assert main(["predict", run, picture, "--threshold", "0", "--out", "answers", *trust]) == 0
    (answer,) = json.loads(Path("answers/predictions.json").read_text())
    assert len(answer["found"]) == 4
    with Image.open(picture) as before, Image.open(Path("answers", answer["drawn"])) as after:
        assert after.size == before.size
        changed = (np.asarray(after) != np.asarray(before)).any(-1)
    network = load_network(run, trust="my_detector.py")
    from mmdet.apis import inference_detector  # which needs what has been put in place of mmcv's compiled operators

    assert network.dataset_meta["classes"] == tuple(COLOURS)
    theirs = inference_detector(network, picture).pred_instances
    for row, box, score, label in zip(
        answer["found"], theirs.bboxes.tolist(), theirs.scores.tolist(), theirs.labels.tolist(), strict=True
    ):
        assert [row[side] for side in ("left", "top", "right", "bottom")] == pytest.approx(box, abs=0.01)
        assert row["score"] == pytest.approx(score, abs=1e-5) and row["class"] == list(COLOURS)[label]
        edge = round((row["left"] + row["right"]) / 2), min(round(row["bottom"]), SIDES[1] - 1)
        assert changed[edge[1], edge[0]]  # its lower edge is drawn there
