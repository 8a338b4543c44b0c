"""What is reported on images that chose nothing is what counting by hand gives."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from PIL import Image
from pytorch_lightning import LightningModule
from torch import nn

from datamodules.arrays import ArrayDataModule
from datamodules.digits import load_digits_arrays
from datamodules.npz import write_npz
from datamodules.segmentation_folder import SegmentationFolderDataModule
from lightning_modules.pixel_classification import PixelClassificationModule
from lightning_modules.segmentation import SegmentationModule
from search.cli import main
from search.deploy import load_network
from search.deploy.testing import measure_on_test_images as measure
from search.errors import RunError
from search.reports.tested_network import content_of_test
from search.spaces.head import Head
from search.spaces.residual_backbone import ResidualBackbone
from tests.datamodules.coco_files import load, third_file
from tests.search.deploy.test_training import CONVOLUTIONS, planned_run, training


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Digits in three splits: the test images are every other one of those for validation."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    whole = load_digits_arrays()
    images, labels = whole.val_images, whole.val_labels
    names = tuple(f"digit {k}" for k in range(10))
    parts = type(whole)(
        whole.train_images, whole.train_labels, images[::2], labels[::2], names, "d", images[1::2], labels[1::2]
    )
    return write_npz(parts, tmp_path / "digits.npz")


def test_every_class_is_counted(digits, tmp_path, capsys):
    data = {"class_path": "ArrayDataModule", "init_args": {"arrays": str(digits), "flip": False}}
    run = planned_run(tmp_path / "run", targets={"digits": training(data=data, epochs=3)})
    assert main(["train", str(run), "--architecture", CONVOLUTIONS, "--quiet"]) == 0
    folder = run / "trained" / "digits"
    about = json.loads((folder / "network.json").read_text())
    network, module = load_network(folder), ArrayDataModule(digits, flip=False)
    with torch.no_grad():
        answers = [(network(images).argmax(1), labels) for images, labels in module.test_dataloader()]
    found, labels = (torch.cat(each).tolist() for each in zip(*answers, strict=True))
    hits = [a == b for a, b in zip(found, labels, strict=True)]
    test = about["test"]
    assert test["images"] == len(labels) == 298 and next(iter(test["metrics"])) == "test_accuracy"
    assert test["metrics"]["test_accuracy"] == pytest.approx(100 * sum(hits) / 298, abs=1e-4)
    assert test["metrics"]["test_accuracy"] != about["metrics"]["val_accuracy"]
    for k in range(10):
        of_class = [hit for hit, label in zip(hits, labels, strict=True) if label == k]
        assert test["of_classes"][f"digit {k}"] == pytest.approx(100 * sum(of_class) / len(of_class))
    head, *rows = csv.reader((folder / "confusion.csv").open())
    assert head[1:] == [row[0] for row in rows] == about["classes"] == [f"digit {k}" for k in range(10)]
    for label, row in enumerate(rows):
        assert [int(n) for n in row[1:]] == [
            sum(pair == (label, k) for pair in zip(labels, found, strict=True)) for k in range(10)
        ]
    out = capsys.readouterr().out
    assert "test:    298 images that chose nothing: test_accuracy" in out and "the worst class is digit" in out
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == min(12, 298 - sum(hits)) and "What is taken for what" in page
    assert about["preprocessing"]["colours"] == "L" and about["preprocessing"]["size"] == [8, 8]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Pictures whose upper part is dark and lower part is bright, and label maps that say where which is."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for k in range(3):
            labels = np.zeros((32, 48), dtype=np.uint8)
            labels[10 + k :], labels[:2] = 1, 255
            pixels = rng.integers(0, 120, (32, 48, 3)) + 120 * (labels == 1)[..., None]
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / split / f"{k}.png")
            Image.fromarray(labels).save(folder / "labels" / split / f"{k}.png")
    return folder


@pytest.mark.parametrize("kind", ["plain", "mmseg"])
def test_intersection_over_union_of_each_class(kind, scenes):
    data = SegmentationFolderDataModule(
        str(scenes),
        ["dark", "bright", "never"],
        batch_size=2,
        resolution=(48, 32),
        crop=(32, 32),
        test_folder="images/test",
        test_label_folder="labels/test",
    )
    torch.manual_seed(0)
    if kind == "plain":
        module = PixelClassificationModule(nn.Conv2d(3, 3, 1))
    else:
        space = ResidualBackbone(base_channels=[8], depths=[8], stages=[4])
        network = space.build(space.parse("basicblock_8_11-21-21-21"), Head(3, 3))
        module = SegmentationModule(
            network, overrides={"decode_head": {"channels": 8}, "auxiliary_head": {"channels": 8}}
        )
    module.eval()
    tested = measure(SimpleNamespace(data=data, trainer={"accelerator": "cpu"}, threads=1), module)
    hits, union = np.zeros(3), np.zeros(3)
    with torch.no_grad():
        for batch in data.test_dataloader():
            for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
                if kind == "plain":
                    rgb = image.flip(0).float()
                    mean, std = torch.tensor(module.mean), torch.tensor(module.std)
                    found = module((rgb - mean.view(3, 1, 1)).div(std.view(3, 1, 1))[None])[0].argmax(0)
                else:
                    (found,) = module.predict([image])
                labels = sample.gt_sem_seg.data[0]
                for k in range(3):
                    ours, theirs = (found == k) & (labels != 255), labels == k
                    hits[k] += int((ours & theirs).sum())
                    union[k] += int((ours | theirs).sum())
    assert [picture.size for picture in tested.examples] == [(48, 32)] * 3
    content = content_of_test(tested, ["dark", "bright", "never"], None)
    assert len(content["rows"]) == 3 and all(uri.startswith("data:image/png") for uri in content["examples"])
    assert tested.images == 3 and tested.of == "pixels" and tested.confusion.sum() == 3 * 30 * 48
    expected = [100 * h / u if u else None for h, u in zip(hits, union, strict=True)]
    assert tested.of_classes == pytest.approx(expected)
    known = [value for value in expected if value is not None]
    assert tested.metrics["test_miou"] == pytest.approx(np.mean(known), abs=0.01)


def test_images_that_cannot_be_read_keep_the_training(scenes):
    for name in ("a", "b"):
        (scenes / name).mkdir()
    data = SegmentationFolderDataModule(
        str(scenes), ["dark", "bright"], resolution=(48, 32), crop=(32, 32), test_folder="a", test_label_folder="b"
    )
    module = PixelClassificationModule(nn.Conv2d(3, 2, 1))
    with pytest.raises(RunError, match=r"the test images: .*the same again tests it"):
        measure(SimpleNamespace(data=data, trainer={"accelerator": "cpu"}, threads=1), module)


class Oracle(LightningModule):
    """A detector that answers with the boxes that it is shown."""

    def __init__(self):
        super().__init__()
        self.network = nn.Identity()

    def on_validation_start(self):
        self.evaluator = Evaluator(self.trainer.datamodule.val_metrics())

    def validation_step(self, batch, index):
        for sample in batch["data_samples"]:
            truth = sample.gt_instances
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes.tensor, labels=truth.labels, scores=torch.ones(len(truth))
            )
        self.evaluator.process(data_samples=batch["data_samples"], data_batch=batch)

    def on_validation_epoch_end(self):
        self.log("val_map", self.evaluator.evaluate(4)["coco/bbox_mAP"])


def test_a_detector_is_measured_by_the_boxes_of_a_third_file(tmp_path):
    data = load(third_file(tmp_path), test_annotations="test.json", test_folder="test")
    tested = measure(SimpleNamespace(data=data, trainer={"accelerator": "cpu"}, threads=1), Oracle())
    assert (tested.images, tested.metrics, tested.confusion) == (4, {"test_map": 1.0}, None)
