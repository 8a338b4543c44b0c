"""Annotation files that lack something: completed where there is one answer, otherwise refused in one line."""

import json

import pytest
from PIL import Image

from tests.datamodules.coco_files import LEFT, boxes, content, load, make, refusal, score, told


def without(group, *keys):
    def change(split, found):
        for each in found[group]:
            for key in keys:
                each.pop(key)

    return change


def test_nothing_is_said_of_sound_files(tmp_path):
    assert not told(make(tmp_path)) and score(load(tmp_path)) == 1


@pytest.mark.parametrize(
    ("group", "keys"),
    [
        ("annotations", ["iscrowd"]),
        ("annotations", ["area"]),
        ("annotations", ["id", "area", "iscrowd"]),
        ("images", ["width"]),
        ("images", ["width", "height"]),
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_optional_keys_may_be_missing_or_empty(tmp_path, group, keys, empty):
    remove = without(group, *keys)

    def change(split, found):
        remove(split, found)
        for each in found[group]:
            each.update(dict.fromkeys(keys) if empty else {})

    make(tmp_path, change)
    data = load(tmp_path)
    found = list(boxes(data))
    assert len(found) == 36 and all(left == LEFT[name] for name, left in found)
    assert score(data) == 1 and not told(tmp_path)


def test_a_missing_area_is_that_of_the_box(tmp_path):
    """COCO sorts objects by area into small, medium and large ones; medium begins with 32 times 32 pixels."""

    def change(split, found):
        for each in found["annotations"]:
            del each["area"]
            each["bbox"] = [each["bbox"][0], 2, 28, 60] if each["category_id"] == 1 else each["bbox"]

    metric = load(make(tmp_path, change)).val_metrics()[0]
    areas = {each["category_id"]: each["area"] for each in metric._coco_api.dataset["annotations"]}
    assert areas == {1: 28 * 60, 2: 500, 3: 500}


def test_missing_sizes_are_those_of_the_upright_pictures(tmp_path):
    make(tmp_path, without("images", "width", "height"))
    for split in ("train", "val"):
        photo = Image.new("RGB", (64, 96))
        exif = photo.getexif()
        exif[274] = 6
        photo.save(tmp_path / split / "2.png", exif=exif)
    assert len(list(boxes(load(tmp_path)))) == 36  # upright it is of the size of all others, and so are its boxes in it


def test_annotations_may_be_numbered_from_0_or_twice(tmp_path):
    def change(split, found):
        for number, each in enumerate(found["annotations"]):
            each["id"] = number % 7

    assert score(load(make(tmp_path, change))) == 1


def test_a_crowd_stays_one(tmp_path):
    def change(split, found):
        found["annotations"][0]["iscrowd"] = True

    data = load(make(tmp_path, change))
    assert len(list(boxes(data))) == 34 and score(data) == 1


@pytest.mark.parametrize("changed", ["train", "val"])
@pytest.mark.parametrize(
    ("group", "key"),
    [
        ("categories", "id"),
        ("categories", "name"),
        ("images", "id"),
        ("images", "file_name"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("annotations", "bbox"),
    ],
)
def test_what_nothing_can_stand_in_for_is_named(tmp_path, changed, group, key):
    count = len(content()[group])
    words = refusal(
        make(tmp_path, lambda split, found: without(group, key)(split, found) if split == changed else None)
    )
    assert (
        f"{tmp_path}/{changed}.json holds no annotations in COCO's format ({count} of {count} {group} have no" in words
    )
    assert f"have no '{key}' that" in words


@pytest.mark.parametrize("changed", ["train", "val"])
@pytest.mark.parametrize("group", ["categories", "images", "annotations"])
def test_a_missing_list_is_named(tmp_path, changed, group):
    words = refusal(make(tmp_path, lambda split, found: found.pop(group) and None if split == changed else None))
    assert f"{changed}.json holds no annotations in COCO's format (it has no list of '{group}')" in words


@pytest.mark.parametrize("changed", ["train", "val"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JSONDecodeError: Expecting value"),
        (json.dumps(content())[:-200], "JSONDecodeError"),
        ("[]", "it is a list, not a mapping"),
        ("null", "it is a NoneType, not a mapping"),
        ('{"images": 3}', "it has no list of 'categories'"),
        (json.dumps(content() | {"categories": []}), "its list of 'categories' is empty"),
        (json.dumps(content() | {"images": [7]}), "1 of 1 images have no 'id' that can be read, for instance 7"),
    ],
)
def test_files_of_another_format(tmp_path, changed, text, why):
    make(tmp_path)
    (tmp_path / f"{changed}.json").write_text(text)
    words = refusal(tmp_path)
    assert f"{changed}.json holds no annotations in COCO's format ({why}" in words


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("image_id", 99, "1 of 18 annotations have a image_id that is not in the file, for instance 99"),
        ("image_id", "1", "have a image_id that is not in the file, for instance '1'"),
        ("category_id", 0, "1 of 18 annotations have a category_id that is not in the file, for instance 0"),
        ("bbox", [1, 2, 3], "annotation 1 has bbox [1, 2, 3], four finite numbers are needed"),
        ("bbox", [1, 2, 3, "4"], "four finite numbers are needed"),
        ("bbox", [1, 2, 3, float("nan")], "annotation 1 has bbox [1, 2, 3, nan], four finite numbers"),
        ("iscrowd", "no", "annotation 1 has iscrowd 'no', 0 or 1 is needed"),
    ],
)
def test_annotations_that_contradict_the_rest(tmp_path, key, value, why):
    words = refusal(make(tmp_path, lambda split, found: found["annotations"][0].update({key: value})))
    assert f"{tmp_path}/train.json: " in words and why in words


@pytest.mark.parametrize("group", ["images", "categories"])
def test_ids_are_unique(tmp_path, group):
    words = refusal(make(tmp_path, lambda split, found: found[group][2].update(id=1)))
    assert f"train.json has 2 {group} with the id 1; each needs its own" in words
