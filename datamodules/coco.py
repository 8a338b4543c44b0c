"""Detection on COCO, or on any data set with annotations in COCO's format."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from datamodules.coco_annotations import CocoAnnotations
from datamodules.coco_metric import box_metric
from datamodules.coco_selection import SLACK, Selection, agree_on_classes, select, size_of
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
from lightning_modules.spelling import nearest

_MANY_IMAGES = 10_000
"""COCO's own are 118,287 and 5,000."""
_PURPOSES = {"train": "training", "val": "validation", "test": "testing"}
_Part = Literal["train", "val", "test"]
_CURE = (
    "download train2017.zip, val2017.zip and annotations_trainval2017.zip from cocodataset.org/#download and unpack "
    "them there, or set CATCHMARK_DATA to the folder that holds it"
)


class CocoDataModule(OpenMMLabDataModule):
    """Boxes in COCO's format, read by mmdet's ``CocoDataset`` and scored by its ``CocoMetric``.

    Training images without a box, or with a side below 32 pixels, are left out; crowds count as ignored regions. Images
    are scaled so that they just fit into the resolution; in training they are mirrored at random. Labels go by the
    names of categories, whatever their order and ids in the two files.

    Files are looked at at once: annotations whole, images only so far as they are there and of the right size.

    Args:
        root: the folder; a relative one is looked for below the current folder, then below ``$CATCHMARK_DATA``.
        batch_size: images a step.
        resolution: what the longer and the shorter side may have at most, in pixels.
        flip: probability that a training image is mirrored left to right.
        train_annotations: file below ``root``.
        val_annotations: likewise. Where it is the same file, every fifth image, in the order of their names, is for
            validation.
        train_folder: the images of ``train_annotations``, below ``root``.
        val_folder: likewise.
        classes: names of the categories to detect, which are taken in the order of the annotations; None for all.
            Where the two files differ in their order it is that of the training categories' ids.
        val_split: ``train`` to validate on the training images, which shows what a network can learn by heart.
        images: only the first so many training images; None for all.
        val_images: likewise of the validation images.
        cache_megabytes: images of a split that take up less memory are decoded once and kept.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.
        left_out: images that are passed over, by the ``file_name`` that the annotations have.
        test_annotations: a third file, of images that choose nothing: `catchmark train` measures what it has trained on
            them. None where there is none, as for COCO itself, whose test boxes nobody has.
        test_folder: the images of ``test_annotations``, below ``root``; None for ``val_folder``.

    Raises:
        FileNotFoundError: there are no data, or an image is missing.
        ValueError: a number is out of range, or annotations cannot be used.
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
        left_out: list[str] | None = None,
        test_annotations: str | None = None,
        test_folder: str | None = None,
    ):
        super().__init__(batch_size, images, val_images, val_split, cache_megabytes, num_workers, seed)
        if len(resolution) != 2 or min(resolution) < 32:
            raise ValueError(f"resolution is {list(resolution)}, two sides of at least 32 pixels are needed")
        self.root, self.resolution, self.flip, self.wanted = root, resolution, check_flip(flip), classes
        self.left_out = left_out or []
        self.annotations: dict[_Part, str] = {"train": train_annotations, "val": val_annotations}
        self.folders: dict[_Part, str] = {"train": train_folder, "val": val_folder}
        if test_annotations is not None:
            if test_annotations in self.annotations.values():
                raise ValueError(f"test_annotations is {test_annotations}, whose images choose something already")
            self.annotations["test"], self.folders["test"] = test_annotations, test_folder or val_folder
        self._look_at_files()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"resolution": [96, 64], "images": 8, "val_images": 2, "batch_size": 2}

    @cached_property
    def folder(self) -> Path:
        """Where the data set lies."""
        needed = [*self.annotations.values(), *self.folders.values()]
        return find_folder(self.root, needed, "no data set in COCO's format", _CURE)

    @property
    def metainfo(self) -> dict[str, Any]:
        """The names of the ``classes`` and their ``palette``."""
        return self._metainfo

    def load_records(self, split: _Part, most: int | None) -> Records:
        """The data set of mmdet, in which each record has the path, size and instances of an image."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmdet.datasets import CocoDataset

        content = self.selected(split)
        records = CocoDataset(
            ann_file=self.annotations[split],
            data_root=str(self.folder),
            data_prefix={"img": self.folders[split]},
            metainfo=self.metainfo,
            filter_cfg=None,  # what is selected has been filtered
            indices=most,
            # Workers share records that are serialised, which pays for many.
            serialize_data=len(content.images) > _MANY_IMAGES,
            lazy_init=True,
        )
        records.COCOAPI = lambda file: _index(content)
        records.full_init()
        del records.COCOAPI  # it holds the annotations
        return records

    def transforms(self, augmented: bool) -> tuple[list[Transform], list[Transform]]:
        """The pipeline of mmdet's COCO configurations."""
        from lightning_modules.openmmlab import prepare

        prepare()
        from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize

        resize, boxes = Resize(scale=tuple(self.resolution), keep_ratio=True), LoadAnnotations(with_bbox=True)
        loading: list[Transform] = [LoadPicture(_drawn, upright=True, slack=SLACK)]
        if augmented:
            return loading, [boxes, resize, RandomFlip(prob=self.flip), PackDetInputs()]
        # Boxes come after the resize, for validation compares them in the image's own pixels.
        return loading, [resize, boxes, PackDetInputs()]

    def val_metrics(self) -> list[Any]:
        """COCO's mean average precision of boxes: ``coco/bbox_mAP`` and its kin, from 0 to 1."""
        return self._metrics(self.val_split, self.val_records)

    def _metrics(self, split: _Part, records: Records) -> list[Any]:
        metric = box_metric(self.metainfo)
        metric._coco_api = _index(self.selected(split))
        # Of the images that are looked at; the annotations may hold more, each of which would count as missed.
        metric.img_ids = [records.get_data_info(index)["img_id"] for index in range(len(records))]
        return [metric]

    # ---- a third file ----------------------------------------------------------------------------------------------

    @property
    def has_test(self) -> bool:
        """Whether there are annotations of test images."""
        return "test" in self.annotations

    @cached_property
    def test_records(self) -> Records:
        """The test records, looked for on first use."""
        return self.load_records("test", None)

    def test_set(self) -> Samples:
        """The test images, by index, read as those of validation.

        Raises:
            ValueError: there are none.
        """
        if not self.has_test:
            return super().test_set()
        loading, rest = self.transforms(augmented=False)
        return Samples(LoadedRecords(self.test_records, loading), rest)

    def test_metrics(self) -> list[Any]:
        """The same of the test images; of those for validation where there are none."""
        return self._metrics("test", self.test_records) if self.has_test else self.val_metrics()

    # ---- what is in the files --------------------------------------------------------------------------------------

    def _look_at_files(self) -> None:
        """Notice data that cannot be right before a search has begun."""
        files = {
            split: CocoAnnotations(self.folder / self.annotations[split], self.folder / self.folders[split])
            for split in self.annotations
            if split != "val" or self.val_split == "val"
        }
        self._leave_out(files)
        if "val" in files and self.annotations["train"] == self.annotations["val"]:
            files["train"].keep_fold(held_out=False)
            files["val"].keep_fold(held_out=True)
        wanted = self._check_classes(list(files["train"].ids))
        known = agree_on_classes(files["train"], files.get("val"), wanted)
        agree_on_classes(files["train"], files.get("test"), wanted, _PURPOSES["test"])
        classes = tuple(name for name in known if self.wanted is None or name in self.wanted)
        self._metainfo = {"classes": classes, "palette": [_colour(known.index(name)) for name in classes]}
        most = {"train": self.images, "val": self.val_images}
        # Serialised, because workers can share that, and because mmdet and COCO's evaluation write into annotations.
        self._selections = {
            split: json.dumps(select(file, classes, _PURPOSES[split], most.get(split), _CURE))
            for split, file in files.items()
        }

    def _check_classes(self, known: list[str]) -> list[str] | None:
        if self.wanted is not None:
            for name in self.wanted:
                if name not in known:
                    hint = nearest(name, known, "known")
                    raise ValueError(f"classes: '{name}' is no category of {self.annotations['train']}{hint}")
            if not self.wanted or len(set(self.wanted)) < len(self.wanted):
                raise ValueError(f"classes is {self.wanted}, one or more different names are needed")
        return self.wanted

    def _leave_out(self, files: Mapping[_Part, CocoAnnotations]) -> None:
        known = {image["file_name"] for file in files.values() for image in file.images}
        for name in self.left_out:
            if name not in known and self.val_split == "val":
                raise ValueError(f"left_out: there is no image '{name}' in the annotations; take it out of the list")
        for file in files.values():
            file.leave_out(self.left_out)

    def selected(self, split: _Part) -> Selection:
        """The images, boxes and categories that a split uses."""
        return Selection(*json.loads(self._selections[split]))


def _index(content: Selection) -> Any:
    """COCO's way to annotations."""
    from mmdet.datasets.api_wrappers import COCO

    index = COCO()
    index.dataset = content._asdict()
    with contextlib.redirect_stdout(io.StringIO()):  # it reports that it indexes
        index.createIndex()
    index.img_ann_map, index.cat_img_map = index.imgToAnns, index.catToImgs
    return index


def _drawn(record: Record) -> tuple[Size, str]:
    return size_of(record), "its annotations"


def _colour(category: int) -> tuple[int, int, int]:
    """A colour of its own for each category: hues a golden angle apart."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(category * 0.618034 % 1, 0.5 + 0.5 * (category % 2), 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)
