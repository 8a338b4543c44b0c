"""Scenes of handwritten digits for every kind of task: real data without a download, of which everything is known.

All four data modules show the same scenes where their first arguments agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, Optional

import numpy as np

from datamodules.arrays import ArrayDataModule
from datamodules.augmentation import Augmentation
from datamodules.coco_metric import box_metric
from datamodules.depth_folder import DepthFolderDataModule, Pair
from datamodules.epochs import check_counts
from datamodules.image_arrays import ImageArrays
from datamodules.openmmlab_data import OpenMMLabDataModule, Record, Records, Split, Transform, check_flip
from datamodules.scenes import CLASSES, Scenes, digit_scenes
from datamodules.segmentation_folder import iou_metric

_PALETTE = [
    [60, 60, 60],
    [230, 25, 75],
    [60, 180, 75],
    [255, 225, 25],
    [0, 130, 200],
    [245, 130, 48],
    [145, 30, 180],
    [70, 240, 240],
    [240, 50, 230],
    [210, 245, 60],
    [250, 190, 212],
]
"""Red, green and blue of the background and of each digit."""


class _OfScenes:
    """What data modules of scenes have in common."""

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"scenes": 40, "val_scenes": 8}


class DigitScenesClassification(_OfScenes, ArrayDataModule):
    """Which digit is the nearest: images in 10 classes. They are never mirrored: a mirrored digit is another thing.

    Args:
        scenes: to train on.
        val_scenes: to validate on, of other digit images.
        size: height and width of a scene, in pixels.
        digits: a scene has 1 to this many.
        scene_seed: of the scenes, which stay the same whatever ``seed`` is.
        batch_size: images a step.
        padding: by how many pixels training images may be shifted; None for an eighth of the resolution.
        num_workers: processes that make batches.
        seed: of order and shifts; `reseed` changes it.
        resolution: to shrink images to; None to take them as they are.
        augmentation: see `ArrayDataModule`.
    """

    def __init__(
        self,
        scenes: int = 1000,
        val_scenes: int = 250,
        size: int = 64,
        digits: int = 4,
        scene_seed: int = 0,
        batch_size: int = 64,
        padding: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        resolution: int | None = None,
        augmentation: Optional[Augmentation] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
    ):
        super().__init__(
            "digit scenes",
            batch_size,
            flip=False,
            padding=padding,
            num_workers=num_workers,
            seed=seed,
            resolution=resolution,
            augmentation=augmentation,
        )
        self._scenes = _Source(scenes, val_scenes, size, digits, scene_seed)

    def load(self) -> ImageArrays:
        """The scenes, each with its nearest digit as the label."""
        train, val = self._scenes("train"), self._scenes("val")
        return ImageArrays(train.images, train.nearest, val.images, val.nearest, CLASSES[1:], "digit scenes")


class DigitScenesDetection(_OfScenes, OpenMMLabDataModule):
    """Which digits are where: boxes in 10 classes, for mmdet. A box is that of the visible part of a digit.

    Args:
        scenes: to train on.
        val_scenes: to validate on, of other digit images.
        size: height and width of a scene, in pixels.
        digits: a scene has 1 to this many.
        scene_seed: of the scenes, which stay the same whatever ``seed`` is.
        batch_size: images a step.
        flip: probability that a training scene is mirrored; a mirrored digit is another thing.
        num_workers: processes that make batches.
        val_split: ``train`` to validate on the training scenes, which shows what a network can learn by heart.
        seed: of order and flips; `reseed` changes it.
    """

    def __init__(
        self,
        scenes: int = 1000,
        val_scenes: int = 250,
        size: int = 64,
        digits: int = 4,
        scene_seed: int = 0,
        batch_size: int = 16,
        flip: float = 0.0,
        num_workers: int = 0,
        val_split: Split = "val",
        seed: int = 0,
    ):
        super().__init__(batch_size, val_split=val_split, num_workers=num_workers, seed=seed)
        self._scenes, self.flip = _Source(scenes, val_scenes, size, digits, scene_seed), check_flip(flip)
        self.resolution = (size, size)

    @property
    def metainfo(self) -> dict[str, Any]:
        """The names of the ``classes`` and their ``palette``."""
        return {"classes": CLASSES[1:], "palette": _PALETTE[1:]}

    def load_records(self, split: Split, most: int | None) -> Records:
        """Scenes with their boxes."""
        return _SceneRecords(self._scenes(split), "boxes")

    def transforms(self, augmented: bool) -> tuple[list[Transform], list[Transform]]:
        """The pipeline of mmdet, less what reads files."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmdet.datasets.transforms import LoadAnnotations, LoadImageFromNDArray, PackDetInputs, RandomFlip

        loading = [LoadImageFromNDArray(), LoadAnnotations(with_bbox=True)]
        if augmented:
            return loading, [RandomFlip(prob=self.flip), PackDetInputs()]
        # Without a file of annotations the metric takes the truth from the samples.
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "instances")
        return loading, [PackDetInputs(meta_keys=keys)]

    def val_metrics(self) -> list[Any]:
        """COCO's mean average precision of boxes: ``coco/bbox_mAP`` and its kin, from 0 to 1."""
        return [box_metric(self.metainfo)]


class DigitScenesSegmentation(_OfScenes, OpenMMLabDataModule):
    """Which pixel belongs to which digit: 11 classes, the first of which is the background, for mmseg.

    Args:
        scenes: to train on.
        val_scenes: to validate on, of other digit images.
        size: height and width of a scene, in pixels.
        digits: a scene has 1 to this many.
        scene_seed: of the scenes, which stay the same whatever ``seed`` is.
        batch_size: images a step.
        flip: probability that a training scene is mirrored; a mirrored digit is another thing.
        photometric: whether brightness, contrast, saturation and hue of training scenes change at random.
        num_workers: processes that make batches.
        val_split: ``train`` to validate on the training scenes, which shows what a network can learn by heart.
        seed: of order and augmentation; `reseed` changes it.
    """

    def __init__(
        self,
        scenes: int = 1000,
        val_scenes: int = 250,
        size: int = 64,
        digits: int = 4,
        scene_seed: int = 0,
        batch_size: int = 16,
        flip: float = 0.0,
        photometric: bool = False,
        num_workers: int = 0,
        val_split: Split = "val",
        seed: int = 0,
    ):
        super().__init__(batch_size, val_split=val_split, num_workers=num_workers, seed=seed)
        self._scenes, self.flip = _Source(scenes, val_scenes, size, digits, scene_seed), check_flip(flip)
        self.photometric, self.resolution = photometric, (size, size)

    @property
    def metainfo(self) -> dict[str, Any]:
        """The names of the ``classes`` and their ``palette``."""
        return {"classes": CLASSES, "palette": _PALETTE}

    def load_records(self, split: Split, most: int | None) -> Records:
        """Scenes with their class maps."""
        return _SceneRecords(self._scenes(split), "class map")

    def transforms(self, augmented: bool) -> tuple[list[Transform], list[Transform]]:
        """The pipeline of mmseg, less what reads files."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmcv.transforms import RandomFlip
        from mmseg.datasets.transforms import LoadImageFromNDArray, PackSegInputs, PhotoMetricDistortion

        random: list[Transform] = [RandomFlip(prob=self.flip)] if augmented else []
        if augmented and self.photometric:
            random.append(PhotoMetricDistortion())
        return [LoadImageFromNDArray()], [*random, PackSegInputs()]

    def val_metrics(self) -> list[Any]:
        """The mean intersection over union, ``mIoU``, and pixel accuracy, from 0 to 100."""
        return [iou_metric(self.metainfo)]


class DigitScenesDepth(_OfScenes, DepthFolderDataModule):
    """How far each pixel is: inverse depth in 1/m, known everywhere. Training scenes are mirrored at random.

    Args:
        scenes: to train on.
        val_scenes: to validate on, of other digit images.
        size: height and width of a scene, in pixels, a multiple of 32.
        digits: a scene has 1 to this many.
        scene_seed: of the scenes, which stay the same whatever ``seed`` is.
        batch_size: images a step.
        num_workers: processes that make batches.
        seed: of order and flips; `reseed` changes it.
    """

    def __init__(
        self,
        scenes: int = 1000,
        val_scenes: int = 250,
        size: int = 64,
        digits: int = 4,
        scene_seed: int = 0,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ):
        self._scenes = _Source(scenes, val_scenes, size, digits, scene_seed)
        if size % 32:
            raise ValueError(f"size is {size}, a multiple of 32 is needed")
        super().__init__("digit scenes", size, batch_size, num_workers=num_workers, seed=seed)

    @property
    def num_classes(self) -> int:
        """0, for a depth map takes the place of logits."""
        return 0

    @property
    def bits(self) -> int:
        """Scenes have 8."""
        return 8

    @cached_property
    def train_pictures(self) -> Sequence[Pair]:  # type: ignore[override]  # batches ask for pairs by index, no more
        """The training scenes and their inverse depth."""
        return self._pairs("train")

    @cached_property
    def val_pictures(self) -> Sequence[Pair]:  # type: ignore[override]
        """The validation scenes and their inverse depth."""
        return self._pairs("val")

    def _pairs(self, split: Split) -> Sequence[Pair]:
        scenes = self._scenes(split)
        return list(zip(scenes.images, scenes.inverse_depth, strict=True))


class _Source:
    """The scenes of a data module, composed on first use and shared by all that ask for the same."""

    def __init__(self, scenes: int, val_scenes: int, size: int, digits: int, scene_seed: int):
        check_counts(scenes=scenes, val_scenes=val_scenes, digits=digits)
        if size < 32:
            raise ValueError(f"size is {size}, at least 32 pixels are needed")
        if scene_seed < 0:
            raise ValueError(f"scene_seed is {scene_seed}, 0 or more is needed")
        self.counts = {"train": scenes, "val": val_scenes}
        self.size, self.digits, self.seed = size, digits, scene_seed

    def __call__(self, split: Split) -> Scenes:
        return digit_scenes(split, self.counts[split], self.size, self.digits, self.seed)


class _SceneRecords:
    """Scenes as the libraries describe an image, with what one kind of task is to find."""

    def __init__(self, scenes: Scenes, truth: Literal["boxes", "class map"]):
        self.scenes, self.truth = scenes, truth

    def __len__(self) -> int:
        return len(self.scenes)

    def get_data_info(self, idx: int) -> Record:
        """One scene; the colours are in the order blue, green, red, as the libraries read files."""
        image = np.ascontiguousarray(self.scenes.images[idx, ..., ::-1])
        record: Record = {"img": image, "img_id": idx, "sample_idx": idx, "scale_factor": (1.0, 1.0)}
        if self.truth == "class map":
            return record | {"gt_seg_map": self.scenes.class_map[idx].copy(), "seg_fields": ["gt_seg_map"]}
        instances = [
            {"bbox": box, "bbox_label": label, "ignore_flag": 0}
            for box, label in zip(self.scenes.boxes[idx].tolist(), self.scenes.labels[idx].tolist(), strict=True)
        ]
        return record | {"instances": instances, "height": image.shape[0], "width": image.shape[1]}
