"""Cityscapes: semantic segmentation of street scenes."""

from __future__ import annotations

from typing import Any

from datamodules.openmmlab_data import Split
from datamodules.segmentation_folder import SegmentationFolderDataModule

_CLASSES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}


class CityscapesDataModule(SegmentationFolderDataModule):
    """Cityscapes in its own layout: 2,975 training and 500 validation images of 2048x1024 pixels in 19 classes.

    The training labels ``*_gtFine_labelTrainIds.png`` are made by the data set's own tools.

    Args:
        root: the folder; a relative one is looked for below the current folder, then below ``$CATCHMARK_DATA``.
        batch_size: images a step.
        resolution: what the longer and the shorter side of an image are scaled to fit, in pixels.
        crop: height and width of a training crop, in pixels.
        scale_range: of the random scale of training images, relative to ``resolution``.
        flip: probability that a training image is mirrored left to right.
        photometric: whether brightness, contrast, saturation and hue of training images change at random.
        val_split: ``train`` to validate on the training images, which shows what a network can learn by heart.
        images: only the first so many training images; None for all.
        val_images: likewise of the validation images.
        cache_megabytes: images of a split that take up less memory are decoded once and kept.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.
    """

    palette = tuple(_CLASSES.values())
    cure = (
        "download leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from cityscapes-dataset.com, unpack them "
        "there, run 'pip install cityscapesscripts' and 'CITYSCAPES_DATASET=FOLDER csCreateTrainIdLabelImgs', or "
        "set CATCHMARK_DATA to the folder that holds it"
    )

    def __init__(
        self,
        root: str = "cityscapes",
        batch_size: int = 8,
        resolution: tuple[int, int] = (2048, 1024),
        crop: tuple[int, int] = (512, 1024),
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
        super().__init__(
            root,
            list(_CLASSES),
            batch_size,
            resolution,
            crop,
            scale_range,
            flip,
            photometric,
            train_folder="leftImg8bit/train",
            train_label_folder="gtFine/train",
            val_folder="leftImg8bit/val",
            val_label_folder="gtFine/val",
            picture_suffix="_leftImg8bit.png",
            label_suffix="_gtFine_labelTrainIds.png",
            val_split=val_split,
            images=images,
            val_images=val_images,
            cache_megabytes=cache_megabytes,
            num_workers=num_workers,
            seed=seed,
        )

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"resolution": [128, 64], "crop": [64, 64], "images": 8, "val_images": 2, "batch_size": 2}
