"""A recipe for pictures with boxes in COCO's format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from search.recipes.drafts.draft import (
    Draft,
    epochs_for,
    heard,
    leave_out,
    left_out_lines,
    name_of,
    quoted,
    table,
    told,
    unequal,
)
from search.recipes.drafts.sides import BACKBONES, scaled

if TYPE_CHECKING:
    from datamodules.coco_layout import AnnotatedImages

_LONGEST = 320
"""Pixels of the longer side that are suggested at most (assumed: a step of 8 images takes seconds of a CPU)."""


def draft_detection(folder: Path, skip_broken: bool = False) -> Draft:
    """A search for the backbone of a detector of somebody's own objects.

    Args:
        folder: has pictures and, at any place that names tell, their annotations.
        skip_broken: leave out what cannot be read.

    Raises:
        FileNotFoundError: there is no such folder, or an image of the annotations is missing.
        ValueError: annotations cannot be used, or a picture cannot be read.
    """
    from datamodules.coco import CocoDataModule
    from datamodules.coco_layout import find_coco
    from datamodules.examination import examine

    train, val = find_coco(folder)
    files = {folder / split.images / name: name for split in (train, val) for name in _names(folder, split)}
    seen = examine([file for file in files if file.is_file()])
    leave_out(folder, seen, skip_broken)
    left_out = sorted({files[file] for file in seen.broken})
    resolution = scaled(seen.median, _LONGEST, 32)
    with heard() as warned:
        data = CocoDataModule(
            str(folder),
            resolution=resolution,
            train_annotations=train.annotations,
            val_annotations=val.annotations,
            train_folder=train.images,
            val_folder=val.images,
            left_out=left_out,
        )
        amiss = warned()
    boxes = {
        split: Counter(each["category_id"] for each in data.selected(split).annotations) for split in ("train", "val")
    }
    ids = {split: [each["id"] for each in data.selected(split).categories] for split in ("train", "val")}
    counts = {f"{split} boxes": [boxes[split][number] for number in ids[split]] for split in ("train", "val")}
    images = {split: len(data.selected(split).images) for split in ("train", "val")}
    split = (
        "every fifth image, for there is one file of annotations" if train == val else f"those of '{val.annotations}'"
    )
    facts = [
        f"{images['train']:,} images to train on and {images['val']:,} for validation: {split}",
        seen.in_words,
        *table(counts, data.classes),
    ]
    amiss = [*told(left_out), *unequal(data.classes, counts["train boxes"], "boxes to train on"), *amiss]
    return Draft(tuple(facts), tuple(amiss), _body(folder, train, val, images["train"], resolution, left_out))


def _names(folder: Path, split: AnnotatedImages) -> list[str]:
    return [each["file_name"] for each in json.loads((folder / split.annotations).read_bytes())["images"]]


def _body(
    folder: Path,
    train: AnnotatedImages,
    val: AnnotatedImages,
    images: int,
    resolution: tuple[int, int],
    left_out: list[str],
) -> str:
    batch_size = min(8, images)
    epochs = epochs_for(images, batch_size, 1500, 12, 100)
    steps = epochs * max(1, images // batch_size)
    same = "  # the same file: every fifth image is for validation" if train == val else ""
    return f"""\
description: >
  Which small backbone of the residual space, under RetinaNet and from random weights, detects the objects of
  {quoted(folder.resolve().name)} best?
{BACKBONES}targets:
  {name_of(folder)}:
    class_path: TrainedTask
    init_args:
      data:
        class_path: CocoDataModule
        init_args:
          root: {quoted(str(folder))}  # looked for where you run this, then in $CATCHMARK_DATA
          train_annotations: {quoted(train.annotations)}
          train_folder: {quoted(train.images)}
          val_annotations: {quoted(val.annotations)}{same}
          val_folder: {quoted(val.images)}
          resolution: [{resolution[0]}, {resolution[1]}]  # the longer and the shorter side; small objects may need more
          batch_size: {batch_size}
          flip: 0.5  # 0.0 where a mirrored object is another thing
{left_out_lines(left_out, 10)}\
      module:
        class_path: DetectionModule
        init_args:
          detector: retinanet
          overrides:
            neck: {{out_channels: 64}}
            bbox_head: {{in_channels: 64, feat_channels: 64, stacked_convs: 2}}
          learning_rate: 0.02  # for 16 images a step; it goes with their number
          schedule: {{shape: cosine, warmup: 0.05}}
      # From random weights a detector takes long to find anything; these are about {steps:,} steps.
      epochs: {epochs}
      score: val_map
      score_name: mAP (%)
      trainer: {{gradient_clip_val: 10.0}}
agents:
  evolution: {{class_path: RegularizedEvolution, init_args: {{population: 6, tournament: 3}}}}
budget: 12  # detectors that are trained
"""
