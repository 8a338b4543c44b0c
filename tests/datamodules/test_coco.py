"""Detection data in COCO's format: one whose right answers can be read off its pixels, and 160 images of COCO."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from PIL import Image
from torch.utils.data import DistributedSampler

from datamodules.batches import EpochLoader, whole
from datamodules.coco import CocoDataModule
from datamodules.three_parts import ThreePartsDataModule
from tests.datamodules import coco_files

COLOURS = {7: (250, 0, 0), 3: (0, 250, 0), 9: (0, 0, 250)}
"""Of the objects of each category; the image is black elsewhere."""
CATEGORIES = [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}, {"id": 9, "name": "blue"}]


def make_split(root, split, first_id, images=8):
    """Image k has a rectangle of each of the first k % 4 categories; number 3 is too small to train on."""
    rng, content = np.random.default_rng(first_id), {"images": [], "annotations": [], "categories": CATEGORIES}
    (root / f"{split}2017").mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    for k in range(images):
        height, width = (30, 60) if k == 3 else (64, 96)
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        for number, category in enumerate(list(COLOURS)[: k % 4]):
            left, top, side = 2 + 30 * number + int(rng.integers(8)), int(rng.integers(12)), int(rng.integers(12, 18))
            picture[top : top + side, left : left + side] = COLOURS[category]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": first_id + k,
                    "category_id": category,
                    "bbox": [left, top, side, side],
                    "area": side * side,
                    "iscrowd": int(k == 7 and number == 2),
                    "segmentation": [[left, top, left + side, top, left + side, top + side]],
                }
            )
        Image.fromarray(picture).save(root / f"{split}2017" / f"{first_id + k}.png")
        info = {"id": first_id + k, "file_name": f"{first_id + k}.png", "height": height, "width": width}
        content["images"].append(info)
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def make(root):
    make_split(root, "train", 100)
    make_split(root, "val", 200)
    return str(root)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(tmp_path_factory.mktemp("coco"))


def load(root, **settings):
    return CocoDataModule(root, **{"resolution": (192, 128)} | settings)


def epoch_of(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return {
        sample.img_id: (image, sample.gt_instances.bboxes.tensor, sample.gt_instances.labels, sample.flip)
        for batch in loader
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    }


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for k in one for a, b in zip(one[k], other[k], strict=True)
    )


def test_boxes_lie_on_their_objects_through_resize_and_flip(root):
    data, flips = load(root, batch_size=1), set()
    assert (data.num_classes, data.in_channels) == (3, 3)
    assert data.metainfo["classes"] == ("red", "green", "blue") and len(set(data.metainfo["palette"])) == 3
    for epoch in range(6):
        for image, boxes, labels, flip in epoch_of(data, epoch).values():
            assert image.dtype == torch.uint8 and image.shape == (3, 128, 192)
            flips.add(flip)
            for box, label in zip(boxes, labels, strict=True):
                # A colour is a class; channels are blue, green and red.
                ys, xs = torch.nonzero(image[2 - label] > 125, as_tuple=True)
                edges = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                assert (box - edges).abs().max() <= 1
    assert flips == {False, True}


def test_a_sample_is_a_function_of_seed_epoch_and_index_alone(root):
    one = epoch_of(load(root, batch_size=5))
    np.random.seed(5)  # noqa: NPY002 - the state that the transforms draw from
    random.seed(5)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    assert same(one, epoch_of(load(root, batch_size=1)))
    assert (before[0] == np.random.get_state()[1]).all() and before[1] == random.getstate()  # noqa: NPY002
    assert same(one, epoch_of(load(root, batch_size=1, num_workers=2)))
    assert same(one, epoch_of(load(root, batch_size=1, cache_megabytes=0)))
    epochs = [epoch_of(load(root, batch_size=1), epoch) for epoch in range(8)]
    assert len({tuple(epoch[k][3] for k in sorted(one)) for epoch in epochs}) > 4
    data = load(root, batch_size=1)
    data.reseed(1)
    assert any(not same(epochs[epoch], epoch_of(data, epoch)) for epoch in range(3))
    # Kept images are not written into: another pass gives the same.
    assert same(epoch_of(data, 3), epoch_of(data, 3))


def test_order_changes_with_the_epoch(root):
    orders = {tuple(epoch_of(load(root, batch_size=1), epoch)) for epoch in range(6)}
    assert len(orders) > 3


def test_ranks_share_an_epoch(root):
    """Lightning puts torch's distributed sampler in place of ours; samples stay the same."""
    whole_epoch, shares = epoch_of(load(root, batch_size=1), 2), []
    for rank in range(2):
        samples = load(root).training_set()
        sampler = DistributedSampler(samples, num_replicas=2, rank=rank, shuffle=True, drop_last=True)
        sampler.set_epoch(2)
        for batch in EpochLoader(samples, batch_size=2, sampler=sampler, collate_fn=whole):
            for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
                shares.append(sample.img_id)
                assert torch.equal(image, whole_epoch[sample.img_id][0])
    assert len(shares) == len(set(shares)) == 4


def test_training_leaves_out_images_without_boxes_and_small_ones(root):
    assert sorted(epoch_of(load(root, batch_size=1))) == [101, 102, 105, 106, 107]
    data = load(root, batch_size=3)
    assert len(list(data.train_dataloader())) == 1  # of 3; the other two images fill no batch
    assert [len(batch["inputs"]) for batch in data.val_dataloader()] == [3, 3, 2]
    assert sorted(epoch_of(load(root, batch_size=8))) == [101, 102, 105, 106, 107]  # less than one batch
    assert sorted(epoch_of(load(root, batch_size=1, images=2))) == [101, 102]
    assert len(load(root, val_images=3).validation_set()) == 3
    assert len(load(root, val_split="train").validation_set()) == 5
    assert len(load(root, val_split="train", images=4, val_images=2).validation_set()) == 2


def test_crowds_are_ignored_regions(root):
    batch = load(root).training_set().__getitems__([4])
    (sample,) = batch["data_samples"]
    assert sample.img_id == 107 and sample.gt_instances.labels.tolist() == [0, 1]
    assert sample.ignored_instances.labels.tolist() == [2]


def test_some_classes_keep_the_order_of_the_annotations(root):
    data = load(root, batch_size=1, classes=["blue", "red"])
    assert data.num_classes == 2 and data.metainfo["classes"] == ("red", "blue")
    found = epoch_of(data)
    assert sorted(found) == [101, 102, 105, 106, 107]
    for image, boxes, labels, _ in found.values():
        assert len(boxes) and set(labels.tolist()) <= {0, 1}
        for box, label in zip(boxes.round().int().tolist(), labels.tolist(), strict=True):
            inside = image[:, box[1] + 3 : box[3] - 3, box[0] + 3 : box[2] - 3].float().mean(dim=(1, 2))
            assert inside.argmax() == (2, 0)[label]


def evaluate(data, predict):
    evaluator = Evaluator(data.val_metrics())
    for batch in data.val_dataloader():
        for sample in batch["data_samples"]:
            predict(sample)
        evaluator.process(data_samples=batch["data_samples"], data_batch=batch)
    return evaluator.evaluate(len(data.validation_set()))["coco/bbox_mAP"]


def answers(file, data):
    """A detector that has read the annotations, in their own way."""
    content = json.loads(Path(file).read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    classes = list(data.metainfo["classes"])

    def predict(sample, less=0.0):
        boxes, labels = [], []
        for each in content["annotations"]:
            if each["image_id"] == sample.img_id and not each["iscrowd"] and names[each["category_id"]] in classes:
                left, top, width, height = each["bbox"]
                boxes.append([left, top, left + width * (1 - less), top + height])
                labels.append(classes.index(names[each["category_id"]]))
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor(boxes).view(-1, 4), labels=torch.tensor(labels).long(), scores=torch.ones(len(boxes))
        )

    return predict


def test_a_perfect_detector_has_a_mean_average_precision_of_1(root):
    file = Path(root) / "annotations" / "instances_val2017.json"
    for settings in ({}, {"val_images": 3}, {"classes": ["blue", "red"]}):
        data = load(root, **settings)
        assert evaluate(data, answers(file, data)) == 1
    data = load(root)
    # An overlap of 0.72 is enough for 5 of the 10 thresholds from 0.5 to 0.95.
    assert evaluate(data, lambda sample: answers(file, data)(sample, less=0.28)) == pytest.approx(0.5)
    data = load(root, val_split="train", images=4)
    assert evaluate(data, answers(Path(root) / "annotations" / "instances_train2017.json", data)) == 1


@pytest.mark.parametrize(("split", "settings"), [("val", {}), ("val", {"val_images": 20}), ("train", {"images": 10})])
def test_perfect_on_coco_itself(split, settings, real_data):
    root = real_data("images/coco_tiny")
    data = CocoDataModule(str(root), batch_size=8, val_split=split, resolution=(160, 96), **settings)
    assert evaluate(data, answers(root / "annotations" / f"instances_{split}2017.json", data)) == 1


def test_coco_has_80_training_images_with_every_box_inside(real_data):
    from mmdet.datasets import CocoDataset

    root = real_data("images/coco_tiny")
    data = CocoDataModule(str(root), batch_size=8)
    assert data.metainfo["classes"] == CocoDataset.METAINFO["classes"]
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    wanted: dict[int, list[str]] = {}
    for each in content["annotations"]:
        if not each["iscrowd"]:
            wanted.setdefault(each["image_id"], []).append(names[each["category_id"]])
    found = epoch_of(data)
    assert len(found) == 80 and {label for _, _, labels, _ in found.values() for label in labels.tolist()} == {
        *range(80)
    }
    for number, (image, boxes, labels, _) in found.items():
        height, width = image.shape[1:]
        assert max(height, width) <= 1333 and min(height, width) <= 800
        assert max(height, width) == 1333 or min(height, width) == 800
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert sorted(data.metainfo["classes"][label] for label in labels.tolist()) == sorted(wanted[number])


def test_halves_of_a_detection_data_set(root):
    halves = ThreePartsDataModule(load(root, batch_size=1), held_out_share=0.6, evaluation_images=2)
    batches = [batch for batch, _, _ in halves.train_dataloader()]
    assert batches and all(set(batch["train"]) == {"inputs", "data_samples"} for batch in batches)


def test_missing_data_are_named_with_the_cure(tmp_path, monkeypatch):
    root = make(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no data set in COCO's format 'images/coco_x'.*cocodataset\.org"):
        _ = CocoDataModule("images/coco_x").num_classes
    monkeypatch.setenv("CATCHMARK_DATA", str(tmp_path.parent))
    assert CocoDataModule(tmp_path.name).num_classes == 3  # found below $CATCHMARK_DATA
    (tmp_path / "train2017" / "105.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 images of .*instances_train2017\.json are not .*105\.png; "):
        load(root)
    file = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["categories"] = content["categories"][:2]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"train2017\.json: 2 of 12 annotations have a category_id that is not in the"):
        load(root)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks annotations/instances_train2017\.json; download"):
        _ = load(root).num_classes


def test_no_images_at_all(tmp_path):
    make_split(tmp_path, "train", 100, images=1)  # one without a box
    make_split(tmp_path, "val", 200)
    with pytest.raises(ValueError, match=r"instances_train2017\.json: the 0 images for training have no box of these"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": ["gren"]}, "classes: 'gren' is no category of .*; did you mean 'green'?"),
        ({"classes": ["red", "red"]}, r"classes is \['red', 'red'\]"),
        ({"classes": []}, r"classes is \[\]"),
        ({"flip": 1.5}, "flip is 1.5"),
        ({"resolution": (1333, 8)}, r"resolution is \[1333, 8\]"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"images": 0}, "images is 0"),
        ({"val_split": "test"}, "val_split is 'test', allowed: train, val"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments(root, settings, words):
    with pytest.raises(ValueError, match=words):
        _ = load(root, **settings).num_classes


# ---- a third file --------------------------------------------------------------------------------------------------


def test_images_of_a_third_file_choose_nothing_and_are_scored_by_their_own_boxes(tmp_path):
    root, third = coco_files.third_file(tmp_path), {"test_annotations": "test.json", "test_folder": "test"}
    data, two = coco_files.load(root, **third), coco_files.load(root)
    assert (data.has_test, len(data.test_set()), len(data.validation_set())) == (True, 4, 6)
    assert [*coco_files.boxes(data)] == [*coco_files.boxes(two)]
    left = {
        (two.metainfo["classes"][label], round(box[0]))
        for batch in data.test_dataloader()
        for sample in batch["data_samples"]
        for label, box in zip(
            sample.gt_instances.labels.tolist(), sample.gt_instances.bboxes.tensor.tolist(), strict=True
        )
    }
    assert left == {(name, at + 6) for name, at in coco_files.LEFT.items()}
    assert coco_files.score(data) == coco_files.score(data, test=True) == 1
    # Of the file it knows, every image is scored: those that are not looked at would count as missed.
    assert not two.has_test and len([*two.test_dataloader()]) == len([*two.val_dataloader()])
    assert "whose images choose something already" in coco_files.refusal(root, test_annotations="val.json")
    assert "the 6 images for testing have no box" in coco_files.refusal(
        coco_files.make(
            tmp_path / "none",
            lambda split, found: found["annotations"].clear() if split == "test" else None,
            ("train", "val", "test"),
        ),
        **third,
    )
