"""A recipe for pictures with label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
    from datamodules.label_layout import LabelledFolders
    from datamodules.label_maps import Pair

_LONGEST, _LARGEST_CROP = 480, 256
"""Pixels of the longer side, and of a side of a training crop, that are suggested at most (assumed)."""
_NAMES = ("classes.txt", "labels.txt", "class_names.txt")
"""Files that may hold the name of each class, a line each."""


def draft_segmentation(folder: Path, skip_broken: bool = False) -> Draft:
    """A search for the backbone of a network that labels every pixel of somebody's own pictures.

    Args:
        folder: has folders of pictures, and of label maps under the same names.
        skip_broken: leave out what cannot be read, with its counterpart.

    Raises:
        FileNotFoundError: there is no such folder, or a picture has no label map.
        ValueError: pictures and label maps do not go together, or one cannot be read.
    """
    from datamodules.examination import examine
    from datamodules.label_layout import find_label_folders
    from datamodules.label_maps import find_pairs
    from datamodules.segmentation_folder import SegmentationFolderDataModule

    train, val = find_label_folders(folder)
    cure = SegmentationFolderDataModule.cure
    with heard() as warned:
        pairs = [
            pair
            for split in dict.fromkeys((train, val))
            for pair in find_pairs(
                folder / split.pictures,
                folder / split.labels,
                None,
                train.label_suffix,
                None,
                cure,
                train.labels == val.labels,
            )
        ]
        amiss = warned()
    pictures, maps = (examine([pair[k] for pair in pairs]) for k in (0, 1))
    left_out = leave_out(folder, pictures._replace(broken=pictures.broken | maps.broken), skip_broken)
    without = {folder / path for path in left_out}
    pixels = _pixels([pair for pair in pairs if without.isdisjoint(pair)])
    names = _names(folder, pixels)
    resolution = scaled(pictures.median, _LONGEST, 32)
    crop = tuple(min(_LARGEST_CROP, side) for side in reversed(resolution))
    with heard() as warned:
        data = SegmentationFolderDataModule(
            str(folder),
            names,
            resolution=resolution,
            crop=(crop[0], crop[1]),
            train_folder=train.pictures,
            train_label_folder=train.labels,
            val_folder=val.pictures,
            val_label_folder=val.labels,
            label_suffix=train.label_suffix,
            left_out=left_out,
        )
        amiss += [each for each in warned() if each not in amiss]
    images = {split: len(data.pairs(split)) for split in ("train", "val")}
    split = (
        "every fifth picture, for there is no folder for validation" if train == val else f"those in '{val.pictures}'"
    )
    counts = [int(count) for count in pixels[: len(names)]]
    shares = [round(100 * count / max(1, sum(counts))) for count in counts]
    facts = [
        f"{images['train']:,} pictures to train on and {images['val']:,} for validation: {split}",
        pictures.in_words,
        *table({"pixels": counts, "% of them": shares}, names),
        f"{int(pixels[255]):,} pixels are 255 and do not count",
    ]
    amiss = [*told(left_out), *unequal(names, counts, "pixels"), *amiss]
    if names[0] == "class 0":
        amiss.append("the classes have no names yet: write them into 'classes', or a line each into classes.txt")
    return Draft(
        tuple(facts), tuple(amiss), _body(folder, train, val, names, images["train"], resolution, crop, left_out)
    )


def _pixels(pairs: Sequence[Pair]) -> np.ndarray:
    """How many pixels have each label: int64 ``[256]``."""
    from tqdm import tqdm

    from datamodules.label_maps import IGNORED, read_label_map

    pixels = np.zeros(256, dtype=np.int64)
    for _, label_map in tqdm(pairs, desc="label maps looked at", unit=" maps", leave=False, disable=None):
        pixels += np.bincount(read_label_map(label_map, IGNORED).ravel(), minlength=256)
    return pixels


def _names(folder: Path, pixels: np.ndarray) -> list[str]:
    """The classes: as a file says, or numbers up to the highest label."""
    highest = int(np.flatnonzero(pixels[:255]).max(initial=0))
    for file in (folder / name for name in _NAMES):
        if file.is_file():
            names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            if len(names) <= highest:
                raise ValueError(f"{file} names {len(names)} classes, but label {highest} is in the label maps")
            return names
    return [f"class {label}" for label in range(max(2, highest + 1))]


def _body(
    folder: Path,
    train: LabelledFolders,
    val: LabelledFolders,
    names: list[str],
    images: int,
    resolution: tuple[int, int],
    crop: Sequence[int],
    left_out: list[str],
) -> str:
    batch_size = min(8, images)
    epochs = epochs_for(images, batch_size, 1500, 12, 100)
    same = "  # the same folder: every fifth picture is for validation" if train == val else ""
    return f"""\
description: >
  Which small backbone of the residual space, under an FPN head and from random weights, labels the pixels of
  {quoted(folder.resolve().name)} best?
{BACKBONES}targets:
  {name_of(folder)}:
    class_path: TrainedTask
    init_args:
      data:
        class_path: SegmentationFolderDataModule
        init_args:
          root: {quoted(str(folder))}  # looked for where you run this, then in $CATCHMARK_DATA
          classes: {quoted(names)}
          train_folder: {quoted(train.pictures)}
          train_label_folder: {quoted(train.labels)}
          val_folder: {quoted(val.pictures)}{same}
          val_label_folder: {quoted(val.labels)}
          label_suffix: {quoted(train.label_suffix)}
          resolution: [{resolution[0]}, {resolution[1]}]  # the longer and the shorter side
          crop: [{crop[0]}, {crop[1]}]  # height and width that are trained on
          batch_size: {batch_size}
          flip: 0.5  # 0.0 where a mirrored picture is another thing
{left_out_lines(left_out, 10)}\
      module:
        class_path: SegmentationModule
        init_args:
          head: _base_/models/fpn_r50.py
          overrides:
            neck: {{out_channels: 64}}
            decode_head: {{in_channels: [64, 64, 64, 64], channels: 64, dropout_ratio: 0.0}}
          learning_rate: 0.05
          schedule: {{shape: poly, warmup: 0.05}}
      epochs: {epochs}  # about {epochs * max(1, images // batch_size):,} steps
      score: val_miou
      score_name: mIoU (%)
agents:
  evolution: {{class_path: RegularizedEvolution, init_args: {{population: 6, tournament: 3}}}}
budget: 12  # networks that are trained
"""
