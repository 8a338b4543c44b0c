"""Small data sets in COCO's format, and what a data module makes of them."""

import json
import warnings

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from PIL import Image

from datamodules.coco import CocoDataModule

WIDTH, HEIGHT = 96, 64
NAMES = ("square", "disc", "bar")
LEFT = {"square": 2, "disc": 34, "bar": 66}
"""Where an object of each class lies: its box tells its class."""


def content():
    """Annotations of six images with an object of each class."""
    images = [{"id": k + 1, "file_name": f"{k}.png", "width": WIDTH, "height": HEIGHT} for k in range(6)]
    annotations = [
        {
            "id": 3 * k + c + 1,
            "image_id": k + 1,
            "category_id": c + 1,
            "bbox": [LEFT[name], 3 + 5 * k, 20, 25],
            "area": 500,
            "iscrowd": 0,
        }
        for k in range(6)
        for c, name in enumerate(NAMES)
    ]
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def make(root, change=lambda split, found: None, splits=("train", "val")):
    """A data set whose annotations are changed in place, or replaced by what that gives."""
    for split in splits:
        (root / split).mkdir(parents=True)
        found = content()
        for image in found["images"]:
            Image.new("RGB", (WIDTH, HEIGHT)).save(root / split / image["file_name"])
        found = change(split, found) or found
        (root / f"{split}.json").write_text(json.dumps(found))
    return root


def load(root, **settings):
    """A data module over it."""
    places = {"train_annotations": "train.json", "val_annotations": "val.json"}
    places |= {"train_folder": "train", "val_folder": "val"}
    return CocoDataModule(
        str(root), **{"batch_size": 2, "resolution": (WIDTH, HEIGHT), "flip": 0.0} | places | settings
    )


def refusal(root, **settings):
    """What a data module says that refuses the data set, in one line."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def told(root, **settings):
    """What a data module warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(root, **settings)
    return [str(each.message) for each in caught if each.category is UserWarning]


def boxes(data):
    """Name and left edge of every box that is trained on and validated with."""
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            for sample in batch["data_samples"]:
                found = sample.gt_instances
                for label, box in zip(found.labels.tolist(), found.bboxes.tensor.tolist(), strict=True):
                    yield data.metainfo["classes"][label], round(box[0])


def third_file(root):
    """A data set with four test images, whose objects lie a little to the right and whose categories go backwards."""

    def change(split, found):
        if split == "test":
            found["images"] = found["images"][:4]
            found["annotations"] = [each for each in found["annotations"] if each["image_id"] <= 4]
            for each in found["annotations"]:
                each["bbox"][0] += 6
            found["categories"].reverse()

    return make(root, change, ("train", "val", "test"))


def score(data, test=False):
    """Of a detector that answers with the truth that it is shown."""
    evaluator = Evaluator(data.test_metrics() if test else data.val_metrics())
    for batch in data.test_dataloader() if test else data.val_dataloader():
        for sample in batch["data_samples"]:
            truth = sample.gt_instances
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes.tensor, labels=truth.labels, scores=torch.ones(len(truth))
            )
        evaluator.process(data_samples=batch["data_samples"], data_batch=batch)
    return evaluator.evaluate(len(data.test_set() if test else data.validation_set()))["coco/bbox_mAP"]


def every(key, change):
    """A change of all annotations."""

    def change_all(found):
        for each in found["annotations"]:
            each[key] = change(each[key])

    return change_all
