"""What of an annotation file in COCO's format a split uses, after a look at its images and boxes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from datamodules.coco_annotations import NUMBER, CocoAnnotations, Entry, plain_name
from datamodules.openmmlab_data import listed, say
from datamodules.picture_sizes import Size, is_drawn_upright
from datamodules.pictures import opened, upright_size
from lightning_modules.spelling import nearest

SLACK = 2
"""Pixels by which the size of an image may differ from that in the annotations (assumed: tools round)."""
_LEAST_SIDE = 32
"""Of a training image, in pixels (the detection configurations of mmdet 3.3.0)."""
_MOST_HEADERS = 1000
"""Of more images than this only so many, evenly spaced, have their sizes compared before training."""
_LARGEST_SHARE = 1.01
"""Boxes with no number above this are not in pixels but fractions of the image, rounding included."""
_CROWDS, _SMALL = "crowds", f"on images with a side below {_LEAST_SIDE} pixels"
_FORM = "a bbox is [left, top, width, height] in pixels"


class Selection(NamedTuple):
    """What a split is trained or evaluated on.

    Attributes:
        images: those that are used, each with its width and height.
        annotations: the boxes and crowds in them, of the wanted classes.
        categories: in the order of the classes, whatever their order in the file.
    """

    images: list[Entry]
    annotations: list[Entry]
    categories: list[Entry]


def agree_on_classes(
    train: CocoAnnotations, val: CocoAnnotations | None, wanted: Sequence[str] | None, purpose: str = "validation"
) -> list[str]:
    """The names of the categories, by which labels go in both files.

    Args:
        train: training boxes.
        val: validation boxes; None where they are the same.
        wanted: names of those that count; None for all.
        purpose: what ``val`` is for.

    Returns:
        All, in the order of the training file; by the ids of that where the two files differ in their order.

    Raises:
        ValueError: there are validation boxes of a category that is not trained.
    """
    names = list(train.ids)
    if val is None:
        return names
    for name in val.annotated:
        if name not in train.ids and wanted is None:
            alike = [each for each in names if plain_name(each) == plain_name(name)]
            hint = nearest(alike[0] if alike else name, names, "it has")
            raise ValueError(f"{val.file} has boxes of '{name}', which is no category of {train.file}{hint}")
    lacking = [name for name in wanted or names if name not in val.ids]
    if lacking:
        say(f"{val.file} has no category {listed(lacking)}, as {train.file} has; it does not count in {purpose}")
    in_both = [name for name in names if name in val.ids]
    same_order = in_both == [name for name in val.ids if name in train.ids]
    return names if same_order else sorted(names, key=lambda name: train.ids[name])


def select(file: CocoAnnotations, classes: Sequence[str], purpose: str, most: int | None, cure: str) -> Selection:
    """What a split is trained or evaluated on.

    In training, images without an annotation are left out, and those with a side below 32 pixels. Boxes that mmdet
    leaves out are told of.

    Args:
        file: all that there is.
        classes: names of the categories that count.
        purpose: ``training``, ``validation`` or ``testing``.
        most: only the first so many images; None for all.
        cure: closes the message where images are missing.

    Raises:
        FileNotFoundError: an image is missing.
        ValueError: no box is left, boxes are not in COCO's form, or an image has another size than the file says.
    """
    training, fresh = purpose == "training", int(max(file.ids.values())) + 1
    ids = {name: file.ids.get(name, fresh + index) for index, name in enumerate(classes)}
    wanted = set(ids.values())
    of_image: dict[Any, list[Entry]] = {}
    for each in file.annotations:
        if each["category_id"] in wanted:
            of_image.setdefault(each["image_id"], []).append(each)
    images = [each for each in file.images if not training or each["id"] in of_image]
    _check_there(file, [each for each in images if not _has_size(each)], cure)
    images = [each if _has_size(each) else _with_size(file, each) for each in images]
    small = {each["id"] for each in images if training and min(size_of(each)) < _LEAST_SIDE}
    images = [each for each in images if each["id"] not in small][:most]
    _check_there(file, images, cure)
    for each in images[:: -(-len(images) // _MOST_HEADERS) or 1]:
        is_drawn_upright(file.folder / each["file_name"], size_of(each), f"its annotations in {file.file}", SLACK)
    annotations = [each for image in images for each in of_image.get(image["id"], ())]
    selection = Selection(images, annotations, [{"id": ids[name], "name": name} for name in classes])
    _check_boxes(file, selection, purpose, sum(len(of_image[number]) for number in small))
    return selection


def size_of(image: Entry) -> Size:
    """Width and height that the annotations say an image has."""
    return image["width"], image["height"]


def _has_size(image: Entry) -> bool:
    return all(isinstance(image.get(side), NUMBER) and image[side] > 0 for side in ("width", "height"))


def _with_size(file: CocoAnnotations, image: Entry) -> Entry:
    with opened(file.folder / image["file_name"]) as picture:
        width, height = upright_size(picture)
    return image | {"width": width, "height": height}


def _check_there(file: CocoAnnotations, images: Sequence[Entry], cure: str) -> None:
    @cache
    def names(folder: str) -> set[str]:  # a list of a folder is quicker than a look at each of 118,287 files
        return set(os.listdir(folder)) if os.path.isdir(folder) else set()

    paths = [os.path.join(file.folder, image["file_name"]) for image in images]
    unlisted = [path for path in paths if os.path.basename(path) not in names(os.path.dirname(path))]
    missing = [path for path in unlisted if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(images)} images of {file.file} are not there, for instance {missing[0]}; {cure}"
        )


def _check_boxes(file: CocoAnnotations, selection: Selection, purpose: str, on_small_images: int) -> None:
    """Tell of boxes that mmdet leaves out, and refuse to go on without any."""
    sizes = {image["id"]: size_of(image) for image in selection.images}
    faults, usable = Counter({_SMALL: on_small_images}), []
    for each in selection.annotations:
        if fault := _fault(each, sizes[each["image_id"]]):
            faults[fault] += 1
        else:
            usable.append((each, sizes[each["image_id"]]))
    training = purpose == "training"
    everything = len(usable) + faults.total()
    if not everything:
        raise ValueError(f"{file.file}: the {len(sizes)} images for {purpose} have no box of these classes")
    reasons = ", ".join(f"{count} {fault}" for fault, count in faults.items() if count)
    if selection.annotations and all(max(each["bbox"]) <= _LARGEST_SHARE for each in selection.annotations):
        raise ValueError(
            f"{file.file}: {faults.total()} of {everything} {purpose} boxes are unusable ({reasons}), for they are "
            f"fractions of the image (0 to 1); {_FORM}"
        )
    if not usable:
        raise ValueError(f"{file.file}: all {everything} {purpose} boxes are unusable: {reasons}; {_FORM}")
    past = sum(_reaches_past(*each) for each in usable)
    if past:
        words = f"{file.file}: {past} of {len(usable)} boxes reach past the border of their image"
        if past > len(usable) / 2 and all(_fits_as_corners(*each) for each in usable):
            raise ValueError(f"{words}, and all would fit as [left, top, right, bottom]; {_FORM}")
        say(f"{words}; {_FORM}")
    left_out = faults.total() - faults[_CROWDS]
    if left_out:
        words = "are left out" if training else "count as missed, for nothing is found there"
        say(f"{file.file}: {left_out} of {everything} {purpose} boxes {words}: {reasons}")
    found = {each["category_id"] for each, _ in usable}
    absent = [each["name"] for each in selection.categories if each["id"] not in found]
    if training and absent:
        say(f"{file.file}: no box of {listed(absent)} to train on")


def _fault(annotation: Entry, size: Size) -> str | None:
    """Why mmdet's ``CocoDataset.parse_data_info`` leaves out a box or ignores what is in it; None for a sound one."""
    left, top, width, height = annotation["bbox"]
    if annotation.get("ignore"):
        return "marked 'ignore'"
    if min(width, height) < 0:
        return "of negative width or height"
    if min(width, height) < 1:
        return "narrower or lower than 1 pixel"
    if min(left + width, size[0]) <= max(left, 0) or min(top + height, size[1]) <= max(top, 0):
        return "outside their image"
    if annotation["area"] <= 0:
        return "of area 0 or less"
    return _CROWDS if annotation["iscrowd"] else None


def _reaches_past(annotation: Entry, size: Size) -> bool:
    """Whether a box ends outside of its image by more than rounding explains: a pixel and a hundredth of the side."""
    left, top, width, height = annotation["bbox"]
    over = max(-left, left + width - size[0]), max(-top, top + height - size[1])
    return over[0] > 0.01 * size[0] + 1 or over[1] > 0.01 * size[1] + 1


def _fits_as_corners(annotation: Entry, size: Size) -> bool:
    left, top, right, bottom = annotation["bbox"]
    return left < right <= size[0] + 1 and top < bottom <= size[1] + 1
