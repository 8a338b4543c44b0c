"""Detection on COCO, or on any data set with annotations in COCO's format."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.openmmlab_data import OpenMMLabDataModule, Record, Records, Split, Transform, check_flip, find_folder

_LEAST_SIDE = 32
"""Of a training image, in pixels (the detection configurations of mmdet 3.3.0)."""
_MANY_BYTES = 2**26
"""Of annotations; COCO's own are 450 and 20 million bytes long."""
_CURE = (
    "download train2017.zip, val2017.zip and annotations_trainval2017.zip from cocodataset.org/#download and unpack "
    "them there, or set CATCHMARK_DATA to the folder that holds it"
)


class CocoDataModule(OpenMMLabDataModule):
    """Boxes in COCO's format, read by mmdet's ``CocoDataset`` and scored by its ``CocoMetric``.

    Training images without a box, or with a side below 32 pixels, are left out; crowds count as ignored regions. Images
    are scaled so that they just fit into the resolution; in training they are mirrored at random.

    Args:
        root: the folder; a relative one is looked for below the current folder, then below ``$CATCHMARK_DATA``.
        batch_size: images a step.
        resolution: what the longer and the shorter side may have at most, in pixels.
        flip: probability that a training image is mirrored left to right.
        train_annotations: file below ``root``.
        val_annotations: likewise.
        train_folder: the images of ``train_annotations``, below ``root``.
        val_folder: likewise.
        classes: names of the categories to detect, which are taken in the order of the annotations; None for all.
        val_split: ``train`` to validate on the training images, which shows what a network can learn by heart.
        images: only the first so many training images; None for all.
        val_images: likewise of the validation images.
        cache_megabytes: images of a split that take up less memory are decoded once and kept.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        root: str = "images/coco_tiny",
        batch_size: int = 2,
        resolution: tuple[int, int] = (1333, 800),
        flip: float = 0.5,
        train_annotations: str = "annotations/instances_train2017.json",
        val_annotations: str = "annotations/instances_val2017.json",
        train_folder: str = "train2017",
        val_folder: str = "val2017",
        classes: list[str] | None = None,
        val_split: Split = "val",
        images: int | None = None,
        val_images: int | None = None,
        cache_megabytes: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, images, val_images, val_split, cache_megabytes, num_workers, seed)
        if len(resolution) != 2 or min(resolution) < 32:
            raise ValueError(f"resolution is {list(resolution)}, two sides of at least 32 pixels are needed")
        self.root, self.resolution, self.flip, self.classes = root, resolution, check_flip(flip), classes
        self.annotations: dict[Split, str] = {"train": train_annotations, "val": val_annotations}
        self.folders: dict[Split, str] = {"train": train_folder, "val": val_folder}

    @cached_property
    def folder(self) -> Path:
        """Where the data set lies."""
        needed = [*self.annotations.values(), *self.folders.values()]
        return find_folder(self.root, needed, "no data set in COCO's format", _CURE)

    @cached_property
    def metainfo(self) -> dict[str, Any]:
        """The names of the ``classes`` and their ``palette``."""
        # Of the validation annotations, for those of training take a quarter of a minute to read.
        known = _categories(self.folder / self.annotations["val"])
        if self.classes is not None:
            for name in self.classes:
                if name not in known:
                    near = get_close_matches(name, known, n=1)
                    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
                    raise ValueError(f"classes: '{name}' is no category of {self.annotations['val']}; {hint}")
            if not self.classes or len(set(self.classes)) < len(self.classes):
                raise ValueError(f"classes is {self.classes}, one or more different names are needed")
        # mmdet numbers classes in the order of the annotations, whatever the order in which they are asked for.
        classes = tuple(name for name in known if self.classes is None or name in self.classes)
        return {"classes": classes, "palette": [_colour(known.index(name)) for name in classes]}

    def load_records(self, split: Split, most: int | None) -> Records:
        """The data set of mmdet, in which each record has the path, size and instances of an image."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmdet.datasets import CocoDataset

        file = self.folder / self.annotations[split]
        with contextlib.redirect_stdout(io.StringIO()):  # it reports that it reads
            records = CocoDataset(
                ann_file=self.annotations[split],
                data_root=str(self.folder),
                data_prefix={"img": self.folders[split]},
                metainfo=self.metainfo,
                # None for validation, where every image counts.
                filter_cfg={"filter_empty_gt": True, "min_size": _LEAST_SIDE} if split == "train" else None,
                indices=most,
                # Workers share records that are serialised, which pays for many.
                serialize_data=file.stat().st_size > _MANY_BYTES,
            )
        if len(records.cat_ids) != self.num_classes:
            raise ValueError(
                f"{self.annotations[split]} has {len(records.cat_ids)} of the {self.num_classes} categories of "
                f"{self.annotations['val']}; both need the same"
            )
        self._check_images(records, split)
        return records

    def transforms(self, augmented: bool) -> tuple[list[Transform], list[Transform]]:
        """The pipeline of mmdet's COCO configurations."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmcv.transforms import LoadImageFromFile
        from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize

        resize, boxes = Resize(scale=tuple(self.resolution), keep_ratio=True), LoadAnnotations(with_bbox=True)
        loading = [_without_outlines, LoadImageFromFile()]
        if augmented:
            return loading, [boxes, resize, RandomFlip(prob=self.flip), PackDetInputs()]
        # Boxes come after the resize, for validation compares them in the image's own pixels.
        return loading, [resize, boxes, PackDetInputs()]

    def val_metrics(self) -> list[Any]:
        """COCO's mean average precision of boxes: ``coco/bbox_mAP`` and its kin, from 0 to 1."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmdet.evaluation import CocoMetric

        with contextlib.redirect_stdout(io.StringIO()):
            metric = CocoMetric(ann_file=str(self.folder / self.annotations[self.val_split]), metric="bbox")
        metric.dataset_meta = self.metainfo
        # Of the images that are looked at; the annotations may hold more, each of which would count as missed.
        metric.img_ids = [self.val_records.get_data_info(index)["img_id"] for index in range(len(self.val_records))]
        return [metric]

    def _check_images(self, records: Records, split: Split) -> None:
        # A thousand of them tell as well as 118,287 would.
        some = range(0, len(records), -(-len(records) // 1000) or 1)
        paths = [Path(records.get_data_info(index)["img_path"]) for index in some]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(paths)} images of {self.annotations[split]} are not there, "
                f"for instance {missing[0]}; {_CURE}"
            )


def _categories(file: Path) -> list[str]:
    """The names of the categories, in the order of the file."""
    try:
        content = json.loads(file.read_bytes())
        categories: Sequence[dict[str, Any]] = content["categories"]
        return [category["name"] for category in categories]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no annotations in COCO's format ({type(error).__name__}: {error})") from error


def _without_outlines(record: Record) -> Record:
    """Boxes are all that is needed; to copy polygons takes longer than to decode an image."""
    for instance in record["instances"]:
        instance.pop("mask", None)
    return record


def _colour(category: int) -> tuple[int, int, int]:
    """A colour of its own for each category: hues a golden angle apart."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(category * 0.618034 % 1, 0.5 + 0.5 * (category % 2), 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)
