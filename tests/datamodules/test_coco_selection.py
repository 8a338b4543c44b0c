"""Annotations that tools write in their own way: understood, or refused in one line before anything is trained."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datamodules.coco_files import (
    HEIGHT,
    LEFT,
    NAMES,
    WIDTH,
    boxes,
    every,
    load,
    make,
    refusal,
    score,
    told,
)

# ---- categories -----------------------------------------------------------------------------------------------------


def in_order(order, ids=(1, 2, 3)):
    """The categories in another order, and with other ids."""

    def change(found):
        new = dict(zip((1, 2, 3), ids, strict=True))
        for each in found["annotations"]:
            each["category_id"] = new[each["category_id"]]
        found["categories"] = [{"id": ids[index], "name": NAMES[index]} for index in order]

    return change


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("ids", [(1, 2, 3), (3, 1, 2), (0, 17, 90)])
@pytest.mark.parametrize("changed", ["train", "val"])
def test_labels_go_by_the_names_of_categories(tmp_path, order, ids, changed):
    change = in_order(order, ids)
    data = load(make(tmp_path, lambda split, found: change(found) if split == changed else None))
    assert sorted(data.metainfo["classes"]) == sorted(NAMES)
    found = list(boxes(data))
    assert len(found) == 36 and all(left == LEFT[name] for name, left in found)
    assert score(data) == 1
    if ids == (1, 2, 3):
        assert data.metainfo["classes"] == NAMES  # the order of the ids, or that in which both files agree


def test_files_that_agree_keep_their_order(tmp_path):
    data = load(make(tmp_path, lambda split, found: found["categories"].reverse()))
    assert data.metainfo["classes"] == NAMES[::-1]
    assert all(left == LEFT[name] for name, left in boxes(data))


def test_validation_may_lack_a_category(tmp_path):
    def change(split, found):
        if split == "val":
            found["categories"] = [found["categories"][2], found["categories"][0]]
            found["annotations"] = [each for each in found["annotations"] if each["category_id"] != 2]

    make(tmp_path, change)
    assert any("val.json has no category 'disc', as" in line for line in told(tmp_path))
    data = load(tmp_path)
    assert data.num_classes == 3 and all(left == LEFT[name] for name, left in boxes(data)) and score(data) == 1


def test_validation_boxes_of_a_category_that_is_not_trained(tmp_path):
    def change(split, found):
        if split == "val":
            found["categories"][0]["name"] = "Square "

    make(tmp_path, change)
    assert "val.json has boxes of 'Square ', which is no category of" in refusal(tmp_path)
    assert refusal(tmp_path).endswith("did you mean 'square'?")
    assert load(tmp_path, classes=["disc", "bar"]).num_classes == 2  # it is not asked for


def test_a_validation_category_without_boxes_is_ignored(tmp_path):
    make(
        tmp_path,
        lambda split, found: found["categories"].insert(0, {"id": 9, "name": split}) if split == "val" else None,
    )
    assert load(tmp_path).metainfo["classes"] == NAMES and score(load(tmp_path)) == 1


@pytest.mark.parametrize("name", ["disc", "Disc", " disc", "DI SC"])
def test_two_categories_of_one_name(tmp_path, name):
    words = refusal(make(tmp_path, lambda split, found: found["categories"].append({"id": 8, "name": name})))
    assert f"train.json has two categories 'disc' and '{name}'" in words


def test_a_category_without_a_box_to_train_on_is_told_of(tmp_path):
    def change(split, found):
        found["annotations"] = [each for each in found["annotations"] if split == "val" or each["category_id"] != 2]

    assert told(make(tmp_path, change)) == [f"{tmp_path}/train.json: no box of 'disc' to train on"]
    assert not told(make(tmp_path / "whole"))


# ---- boxes ----------------------------------------------------------------------------------------------------------


UNUSABLE = {
    "fractions": (
        every("bbox", lambda box: [box[0] / 96, box[1] / 64, box[2] / 96, box[3] / 64]),
        "fractions of the image",
    ),
    "area": (every("area", lambda area: 0), "18 of area 0 or less"),
    "negative": (every("bbox", lambda box: [box[0], box[1], -box[2], box[3]]), "18 of negative width or height"),
    "outside": (every("bbox", lambda box: [box[0] + 200, *box[1:]]), "18 outside their image"),
    "thin": (every("bbox", lambda box: [*box[:3], 0.5]), "18 narrower or lower than 1 pixel"),
    "crowds": (every("iscrowd", lambda crowd: 1), "18 crowds"),
}


@pytest.mark.parametrize("changed", ["train", "val"])
@pytest.mark.parametrize(("change", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_split_without_a_usable_box(tmp_path, changed, change, reason):
    words = refusal(make(tmp_path, lambda split, found: change(found) if split == changed else None))
    assert f"{changed}.json: " in words and "18 " in words and reason in words and "unusable" in words
    assert "[left, top, width, height] in pixels" in words


def test_fractions_are_known_where_some_boxes_fill_their_image(tmp_path):
    def change(split, found):
        every("bbox", lambda box: [box[0] / 96, box[1] / 64, box[2] / 96, box[3] / 64])(found)
        found["annotations"][4]["bbox"] = [0, 0, 1, 1]

    assert "17 of 18 training boxes are unusable" in refusal(make(tmp_path, change))


@pytest.mark.parametrize("changed", ["train", "val"])
def test_a_split_without_any_box(tmp_path, changed):
    words = refusal(make(tmp_path, lambda split, found: found["annotations"].clear() if split == changed else None))
    assert f"{changed}.json: the " in words and "have no box of these classes" in words


def test_the_images_that_are_used_must_have_a_box(tmp_path):
    def change(split, found):
        found["annotations"] = [each for each in found["annotations"] if each["image_id"] > 2]

    make(tmp_path, change)
    assert "val.json: the 2 images for validation have no box" in refusal(tmp_path, val_images=2)
    assert len(load(tmp_path, val_images=3, images=1).train_records) == 1


def test_images_too_small_to_train_on(tmp_path):
    def change(split, found):
        for image in found["images"]:
            image["height"] = 30
            Image.new("RGB", (WIDTH, 30)).save(tmp_path / split / image["file_name"])
        every("bbox", lambda box: [*box[:1], 2, *box[2:]])(found)

    words = refusal(make(tmp_path, change))
    assert "all 18 training boxes are unusable: 18 on images with a side below 32 pixels" in words


def test_some_unusable_boxes_are_told_of(tmp_path):
    def change(split, found):
        found["annotations"][0]["bbox"][2] = 0
        found["annotations"][4]["area"] = -1
        found["annotations"][8]["area"] = 0

    reasons = "1 narrower or lower than 1 pixel, 2 of area 0 or less"
    assert told(make(tmp_path, change)) == [
        f"{tmp_path}/train.json: 3 of 18 training boxes are left out: {reasons}",
        f"{tmp_path}/val.json: 3 of 18 validation boxes count as missed, for nothing is found there: {reasons}",
    ]
    data = load(tmp_path)
    assert len(list(boxes(data))) == 30  # mmdet leaves out those and no others


def test_corners_are_no_boxes(tmp_path):
    corners = every("bbox", lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]])
    words = refusal(make(tmp_path, lambda split, found: corners(found)))
    assert "of 18 boxes reach past the border" in words and "would fit as [left, top, right, bottom]" in words


def test_boxes_that_reach_past_the_border_are_told_of(tmp_path):
    def change(split, found):
        found["annotations"][2]["bbox"][2] = 45
        found["annotations"][3]["bbox"][0] = -5
        found["annotations"][5]["bbox"][2] = 31  # a pixel is rounding

    lines = told(make(tmp_path, change))
    assert [line.split(" boxes ")[0] for line in lines] == [
        f"{tmp_path}/{name}.json: 2 of 18" for name in ("train", "val")
    ]


# ---- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["train", "val"])
def test_missing_images_are_counted(tmp_path, changed):
    make(tmp_path)
    for k in (1, 4):
        (tmp_path / changed / f"{k}.png").unlink()
    words = refusal(tmp_path)
    assert f"2 of 6 images of {tmp_path}/{changed}.json are not there, for instance {tmp_path}/{changed}/1.png" in words


def test_images_of_another_size_than_the_annotations_say(tmp_path):
    make(tmp_path)
    Image.new("RGB", (48, 32)).save(tmp_path / "val" / "3.png")
    words = refusal(tmp_path)
    assert f"{tmp_path}/val/3.png has 48x32 pixels and its annotations in {tmp_path}/val.json 96x64" in words


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("drawn", ["as stored", "upright"])
def test_boxes_lie_on_photos_that_are_to_be_turned(tmp_path, suffix, drawn):
    """The size in the annotations says whether boxes are on the stored or on the upright picture."""
    stored = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    stored[10:30, 50:90] = 250
    found = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "light"}]}
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    for orientation in range(1, 9) if drawn == "upright" or suffix == ".tif" else (1, 5, 6, 7, 8):
        photo = Image.fromarray(stored)
        exif = photo.getexif()
        exif[274] = orientation
        for split in ("train", "val"):
            file = tmp_path / split / f"{orientation}{suffix}"
            photo.save(file, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
        seen = stored
        if drawn == "upright" or suffix == ".tif":  # no reader gives a TIFF file's pixels as they are stored
            from PIL import ImageOps

            turned = Image.fromarray(stored)
            turned.getexif()[274] = orientation
            seen = np.asarray(ImageOps.exif_transpose(turned))
        height, width = seen.shape[:2]
        ys, xs = np.nonzero(seen[..., 0])
        box = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
        found["images"].append(
            {"id": orientation, "file_name": f"{orientation}{suffix}", "width": width, "height": height}
        )
        found["annotations"].append(
            {"id": orientation, "image_id": orientation, "category_id": 1, "bbox": [int(side) for side in box]}
        )
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(found))
    data = load(tmp_path, batch_size=1, resolution=(WIDTH, WIDTH))
    looked = 0
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            image, truth = batch["inputs"][0][0] > 128, batch["data_samples"][0]
            scale = truth.scale_factor[0]
            ys, xs = torch.nonzero(image, as_tuple=True)
            edges = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            box = truth.gt_instances.bboxes.tensor[0]
            # Validation has boxes in the image's own pixels.
            assert (box * (scale if loader.batch_sampler.drop_last is False else 1) - edges).abs().max() <= 1.5
            looked += 1
    assert looked == 2 * len(found["images"])
