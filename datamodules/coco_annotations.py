"""Annotation files in COCO's format: read once, checked, and completed where tools leave something out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from datamodules.class_folders import FOLD

NUMBER, _NAME = (int, float), (int, float, str)
_NEEDED: dict[str, dict[str, Any]] = {
    "categories": {"id": NUMBER, "name": str},
    "images": {"id": _NAME, "file_name": str},
    "annotations": {"image_id": _NAME, "category_id": _NAME, "bbox": list},
}
"""The keys that nothing can stand in for, and the kinds of their values."""
_LONGEST = 100  # of what is shown of an entry, in letters

Entry = dict[str, Any]
"""A category, an image or an annotation, with COCO's own keys."""


class CocoAnnotations:
    """An annotation file, less its outlines, which are most of it.

    Without ``iscrowd`` an annotation is none, without ``area`` it has that of its box. They are numbered anew, from 1
    on, for COCO's evaluation takes no match with number 0 for one.

    Args:
        file: the annotations.
        folder: that of their images.

    Raises:
        ValueError: it is not in COCO's format, or contradicts itself; names file and key.
    """

    def __init__(self, file: Path, folder: Path):
        self.file, self.folder = file, folder
        content = self._read()
        self.images: list[Entry] = content["images"]
        self._check_categories(content["categories"])
        self.ids: dict[str, int] = {each["name"]: each["id"] for each in content["categories"]}
        """Of the categories, by name, in the order of the file."""
        self._check_ids("images", "id", [each["id"] for each in self.images])
        self._check_links(content["annotations"], "image_id", (each["id"] for each in self.images))
        self._check_links(content["annotations"], "category_id", self.ids.values())
        self.annotations = [self._complete(number, each) for number, each in enumerate(content["annotations"], 1)]

    @property
    def annotated(self) -> list[str]:
        """Names of the categories that have an annotation."""
        ids = {each["category_id"] for each in self.annotations}
        return [name for name, number in self.ids.items() if number in ids]

    def leave_out(self, names: Collection[str]) -> None:
        """Pass over the images that have one of these file names, with all that is in them."""
        self._keep([image for image in self.images if image["file_name"] not in set(names)])

    def keep_fold(self, held_out: bool) -> None:
        """Keep every fifth image, in the order of their file names, or the four others."""
        ordered = sorted(self.images, key=lambda image: image["file_name"])
        chosen = {id(image) for k, image in enumerate(ordered) if (k % FOLD == FOLD - 1) == held_out}
        if not chosen:
            raise ValueError(f"{self.file} has {len(ordered)} images, {FOLD} are needed to hold one out for validation")
        self._keep([image for image in self.images if id(image) in chosen])

    def _keep(self, images: list[Entry]) -> None:
        kept = {image["id"] for image in images}
        self.images = images
        self.annotations = [each for each in self.annotations if each["image_id"] in kept]

    def _read(self) -> dict[str, list[Entry]]:
        try:
            content = json.loads(self.file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise self._foreign(f"{type(error).__name__}: {error}") from error
        if not isinstance(content, dict):
            raise self._foreign(f"it is a {type(content).__name__}, not a mapping")
        for group, keys in _NEEDED.items():
            entries = content.get(group)
            if not isinstance(entries, list):
                raise self._foreign(f"it has no list of '{group}'")
            for key, kinds in keys.items():
                lacking = [
                    each for each in entries if not isinstance(each, dict) or not isinstance(each.get(key), kinds)
                ]
                if lacking:
                    raise self._foreign(
                        f"{len(lacking)} of {len(entries)} {group} have no '{key}' that can be read, for instance "
                        f"{str(lacking[0])[:_LONGEST]}"
                    )
        if not content["categories"]:
            raise self._foreign("its list of 'categories' is empty")
        return content

    def _foreign(self, why: str) -> ValueError:
        return ValueError(f"{self.file} holds no annotations in COCO's format ({why})")

    def _check_categories(self, categories: Sequence[Entry]) -> None:
        self._check_ids("categories", "id", [each["id"] for each in categories])
        names: dict[str, str] = {}
        for each in categories:
            name, plain = each["name"], plain_name(each["name"])
            if plain in names:
                differ = "" if name == names[plain] else ", which differ in nothing but capital letters and spaces"
                raise ValueError(
                    f"{self.file} has two categories '{names[plain]}' and '{name}'{differ}; rename one, or remove it"
                )
            names[plain] = name

    def _check_ids(self, group: str, key: str, ids: Sequence[Any]) -> None:
        number, times = Counter(ids).most_common(1)[0] if ids else (0, 0)
        if times > 1:
            raise ValueError(f"{self.file} has {times} {group} with the {key} {number!r}; each needs its own")

    def _check_links(self, annotations: Sequence[Entry], key: str, known: Iterable[Any]) -> None:
        ids = set(known)
        unknown = [each[key] for each in annotations if each[key] not in ids]
        if unknown:
            raise ValueError(
                f"{self.file}: {len(unknown)} of {len(annotations)} annotations have a {key} that is not in the file, "
                f"for instance {unknown[0]!r}; remove them, or add what is missing"
            )

    def _complete(self, number: int, given: Entry) -> Entry:
        box, crowd, area = given["bbox"], given.get("iscrowd") or 0, given.get("area")
        try:
            sound = len(box) == 4 and math.isfinite(sum(box))
        except TypeError:
            sound = False
        if not sound:
            raise ValueError(f"{self.file}: annotation {number} has bbox {box}, four finite numbers are needed")
        if crowd not in (0, 1):
            raise ValueError(f"{self.file}: annotation {number} has iscrowd {crowd!r}, 0 or 1 is needed")
        if not isinstance(area, NUMBER) or not math.isfinite(area):
            area = box[2] * box[3]
        complete = {"id": number, "bbox": box, "area": area, "iscrowd": int(crowd)}
        kept = {key: given[key] for key in ("image_id", "category_id", "ignore") if key in given}
        return complete | kept


def plain_name(name: str) -> str:
    """A name without what is easily overlooked: capital letters and spaces."""
    return "".join(name.split()).casefold()
