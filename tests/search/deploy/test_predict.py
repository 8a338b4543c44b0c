"""What ``catchmark predict`` writes is what the network says of the picture, in the picture's own pixels."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.preprocessing import Preprocessing
from search.cli import main
from search.deploy import load_network
from search.deploy.network_folder import load_module, read_about
from search.deploy.predict import load_predictor
from search.errors import CatchmarkError
from search.recipes.trust import RECIPE
from search.runs.json_files import write_json
from tests.search.deploy.test_export import DEPTH, write_folder

CLASSES = ["cat", "dog", "fox", "hen", "owl"]
DETECTOR = {
    "class_path": "DetectionModule",
    "init_args": {"detector": "retinanet", "overrides": {"test_cfg": {"score_thr": 0.0, "max_per_img": 20}}},
}
SCALED = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def trained(folder, preprocessing, *arguments, **named):
    """A folder of a trained network that says how pictures are made ready."""
    write_folder(folder, *arguments, **named)
    about = read_about(folder)
    described = None if preprocessing is None else preprocessing.described()
    write_json(folder / "network.json", about | {"preprocessing": described, "classes": CLASSES})
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Three pictures, one of them in a folder below, a text that is called a picture, and an empty one."""
    place, rng = tmp_path / "pictures", np.random.default_rng(0)
    (place / "more").mkdir(parents=True)
    for name in ("one.png", "two.png", "more/one.png"):
        Image.fromarray(rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)).save(place / name)
    (place / "text.png").write_text("no picture")
    (place / "empty.jpg").touch()
    return place


def test_classes_of_pictures_and_of_those_that_are_none(pictures, tmp_path, capsys):
    ready = Preprocessing("RGB", "centre", (32, 32), crop=0.875, **SCALED)
    folder, out = trained(tmp_path / "network", ready, "residual", resolution=(32, 32)), tmp_path / "out"
    assert main(["predict", str(folder), str(pictures), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"3 pictures: {out}/predictions.json\n"
    assert sorted(printed.err.splitlines()) == [
        f"catchmark: {pictures}/empty.jpg cannot be read as an image (it is empty)",
        f"catchmark: {pictures}/text.png cannot be read as an image (its content is of no known format)",
    ]
    answers = json.loads((out / "predictions.json").read_text())
    names = ["more/one.png", "one.png", "two.png"]
    assert [each["picture"] for each in answers] == [str(pictures / name) for name in names]
    images = torch.cat([ready.normalised(ready.read(pictures / name)[None]) for name in names])
    with torch.no_grad():
        probabilities = load_network(folder)(images).softmax(1)
    for answer, expected in zip(answers, probabilities, strict=True):
        assert [each["class"] for each in answer["found"]] == [CLASSES[k] for k in expected.argsort(descending=True)]
        assert answer["found"][0]["probability"] == pytest.approx(float(expected.max()), abs=1e-4)
    assert [each["drawn"] for each in answers] == ["one.png", "one-2.png", "two.png"]
    with Image.open(out / "one-2.png") as drawn:
        kept = np.asarray(drawn)[: 60 * 3, : 50 * 3]  # enlarged, for the words below it to be read
    np.testing.assert_array_equal(kept[::3, ::3], np.asarray(Image.open(pictures / "one.png")))
    assert main(["predict", str(folder), str(pictures / "two.png"), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 5 and rows[0]["class"] == answers[2]["found"][0]["class"]
    assert set(rows[0]) == {"picture", "class", "probability"}


def test_masks_have_the_size_of_the_picture(pictures, tmp_path, capsys):
    ready = Preprocessing("RGB", "fit", (48, 48), scale=1.0, mean=(120.0, 110.0, 100.0), std=(60.0, 60.0, 60.0))
    folder, out = trained(tmp_path / "network", ready, "decoder", "EncoderDecoderModule", (64, 64)), tmp_path / "out"
    assert main(["predict", str(folder), str(pictures / "one.png"), "--out", str(out)]) == 0
    (answer,) = json.loads((out / "predictions.json").read_text())
    with Image.open(out / answer["mask"]) as picture:
        mask = np.asarray(picture)
    assert mask.shape == (60, 50) and mask.max() < 5 and answer["drawn"] == "one.png"
    shares = {each["class"]: each["share"] for each in answer["found"]}
    for label, name in enumerate(CLASSES):
        assert shares.get(name, 0) == pytest.approx((mask == label).mean(), abs=1e-6)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        logits = load_network(folder)(ready.normalised(ready.read(pictures / "one.png")[None]))
    sized = torch.nn.functional.interpolate(logits, (48, 40), mode="bilinear")[0].argmax(0).numpy().astype(np.uint8)
    np.testing.assert_array_equal(mask, np.asarray(Image.fromarray(sized).resize((50, 60), Image.Resampling.NEAREST)))


def test_boxes_are_in_the_pictures_own_pixels(pictures, tmp_path, capsys):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    ready = Preprocessing("RGB", "fit", (120, 120), scale=1.0, mean=(120.0, 110.0, 100.0), std=(60.0, 60.0, 60.0))
    folder = trained(tmp_path / "detector", ready, "residual", DETECTOR, resolution=(128, 128))
    words = ["predict", str(folder), str(pictures / "one.png"), "--threshold", "0.0"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    (answer,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    with Image.open(pictures / "one.png") as picture:
        large = np.ascontiguousarray(ready.sized(picture)[..., ::-1].transpose(2, 0, 1))  # twice as large, and BGR
    (found,) = load_module(folder, read_about(folder), RECIPE).predict([torch.from_numpy(large)])
    assert large.shape == (3, 120, 100) and len(answer["found"]) == len(found["scores"]) > 0
    for each, box, label in zip(answer["found"], found["boxes"].tolist(), found["labels"].tolist(), strict=True):
        ours = [each[side] for side in ("left", "top", "right", "bottom")]
        assert ours == pytest.approx([edge / 2 for edge in box], abs=0.01) and each["class"] == CLASSES[label]
    with Image.open(tmp_path / "out" / "one.png") as drawn:
        assert drawn.size == (50, 60)


def test_mmdets_and_mmsegs_own_functions_take_the_loaded_models(pictures, tmp_path, capsys):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    from mmdet.apis import inference_detector
    from mmseg.apis import inference_model

    ready = Preprocessing("RGB", "fit", (120, 120), scale=1.0, mean=(120.0, 110.0, 100.0), std=(60.0, 60.0, 60.0))
    folder = trained(tmp_path / "detector", ready, "residual", DETECTOR, resolution=(128, 128))
    network, picture = load_network(folder), pictures / "one.png"
    assert network.dataset_meta["classes"] == tuple(CLASSES)
    found = inference_detector(network, str(picture)).pred_instances
    (row, *_) = load_predictor(folder, threshold=0.0)(picture).rows
    assert found.bboxes[0].tolist() == pytest.approx([row[k] for k in ("left", "top", "right", "bottom")], abs=0.01)
    assert float(found.scores[0]) == pytest.approx(row["score"], abs=1e-5)

    head = {"decode_head": {"channels": 8}, "auxiliary_head": {"channels": 8}}
    module = {"class_path": "SegmentationModule", "init_args": {"overrides": head}}
    folder = trained(tmp_path / "segmentor", ready, "residual", module, resolution=(128, 128))
    labels = inference_model(load_network(folder), str(picture)).pred_sem_seg.data[0]
    mask = load_predictor(folder)(picture).mask
    assert labels.shape == mask.shape == (60, 50)
    assert (labels.numpy() == mask).mean() > 0.95  # mmseg interpolates logits to the picture, predict the classes


def test_refusals(pictures, tmp_path, capsys):
    ready = Preprocessing("RGB", "squeeze", (32, 32), **SCALED)
    with pytest.raises(CatchmarkError, match="a DepthModule is none of those that predict asks"):
        load_predictor(trained(tmp_path / "depth", ready, "residual", DEPTH, resolution=(32, 32)))
    with pytest.raises(CatchmarkError, match="does not say how its pictures are made ready"):
        load_predictor(trained(tmp_path / "unknown", None, "residual", resolution=(32, 32)))
    folder = trained(tmp_path / "network", ready, "residual", resolution=(32, 32))
    (tmp_path / "nothing").mkdir()
    for words, expected, code in [
        ((folder, tmp_path / "nothing"), "nothing has no pictures", 2),
        ((folder, pictures, "--threshold", "2"), "--threshold is 2.0", 2),
        ((tmp_path, pictures), "has no trained network", 2),
        ((folder, tmp_path / "absent.png"), "absent.png", 1),
    ]:
        capsys.readouterr()
        assert main(["predict", *map(str, words)]) == code
        assert expected in (line := capsys.readouterr().err) and line.count("\n") == 1
    about = read_about(folder)
    write_json(folder / "network.json", about | {"module": "mine.Module"})
    assert main(["predict", str(folder), str(pictures)]) == 2
    assert "--trust mine.Module" in capsys.readouterr().err
