"""Pairs of pictures and depth maps from folders, for monocular depth estimation.

Everything about a batch (order, crop, flip) is a pure function of (seed, epoch, image), whatever the number of workers,
ranks or batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datamodules.batches import generator_of
from datamodules.class_folders import SPLITS
from datamodules.epochs import EpochDataModule, check_counts
from datamodules.imagenet import IMAGENET_MEAN, IMAGENET_STD
from datamodules.locations import locations, looked_in
from datamodules.pictures import (
    SUFFIXES,
    deep_values,
    is_deep,
    opened,
    orientation_of,
    read_rgb,
    spaced,
    survey,
    upright,
    upright_size,
)
from datamodules.preprocessing import Preprocessing

HELD_OUT = 10
"""Without lists of a split every tenth pair is held out, which leaves 3,240 of ReDWeb's 3,600 for training."""
_LAYOUTS = (("images", "depths", True), ("Imgs", "RDs", False))
"""Folder of pictures, folder of depth maps, and whether these hold metres (or else relative inverse depth)."""
_CURE = (
    "download ReDWeb V1 (sites.google.com/site/redwebcvpr18) and unpack it there with its folders Imgs and RDs, or put "
    "pairs of NYU Depth V2 (cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html) there as images/NAME.jpg and "
    "depths/NAME.png, with the names of each split in train.txt and test.txt"
)

Pair = tuple[np.ndarray, np.ndarray]
"""A picture, uint8 ``[height, width, 3]``, and its inverse depth, float32 ``[height, width]``, 0 where unknown."""


class DepthPictures:
    """The pairs of a split, resized so that the shorter side has the resolution.

    Args:
        files: picture and depth map of each pair.
        resolution: of the shorter side, in pixels.
        metres_per_unit: of the depth maps; None where they hold relative inverse depth.
        cache_bytes: pairs that take up less than this together are decoded once and kept; others are decoded whenever
            they are asked for.
        bits: of grey pictures of more than 8 bits, as `datamodules.pictures.survey` counts them.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, Path]],
        resolution: int,
        metres_per_unit: float | None,
        cache_bytes: int = 0,
        bits: int = 16,
    ):
        self.files, self.resolution, self.metres_per_unit, self.bits = files, resolution, metres_per_unit, bits
        self._kept: list[Pair] | None = None
        first = self._decode(0)
        if sum(array.nbytes for array in first) * len(files) <= cache_bytes:
            # All at once, before workers are forked: what a worker decodes is lost with it.
            rest = tqdm(range(1, len(files)), desc="depth images", unit=" images", leave=False, disable=None)
            self._kept = [first, *(self._decode(index) for index in rest)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pair:
        return self._decode(index) if self._kept is None else self._kept[index]

    def _decode(self, index: int) -> Pair:
        from PIL import Image

        picture_file, depth_file = self.files[index]
        picture, depth = read_rgb(picture_file, self.bits), _read_depth(depth_file)
        _check_shapes(picture_file, picture.size, depth_file, depth.shape[::-1])
        shorter, longer = sorted(picture.size)
        longer = round(longer * self.resolution / shorter)
        tall = picture.height > picture.width
        height, width = (longer, self.resolution) if tall else (self.resolution, longer)
        small = picture.resize((width, height), Image.Resampling.BILINEAR)
        # The nearest value, because a mean over the edge of an object is a depth at which there is nothing.
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip((height, width), depth.shape, strict=True)
        )
        return np.asarray(small), self._inverse(depth[rows[:, None], columns])

    def _inverse(self, depth: np.ndarray) -> np.ndarray:
        values = depth.astype(np.float32)
        if self.metres_per_unit is None:
            return values / np.float32(255 if depth.dtype == np.uint8 else 65_535)
        known = values > 0
        return np.where(known, 1 / (np.where(known, values, 1) * np.float32(self.metres_per_unit)), np.float32(0))


class DepthBatches(Dataset):
    """Batches of normalised images with their inverse depth.

    Args:
        pictures: the pairs, or anything that gives one for an index.
        resolution: height and width of the crops.
        augment: random crops and flips; False for the centre of each picture.
        seed: of crops and flips.
    """

    def __init__(self, pictures: DepthPictures | Sequence[Pair], resolution: int, augment: bool, seed: int = 0):
        self.pictures, self.resolution, self.augment, self.seed = pictures, resolution, augment, seed
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the crops and flips of an epoch, for every image at once."""
        n = len(self.pictures)
        if self.augment:
            generator = generator_of(self.seed, epoch, 1)
            self._corners = torch.rand(n, 2, generator=generator, dtype=torch.float64).numpy()
            self._flips = (torch.rand(n, generator=generator) < 0.5).numpy()
        else:
            self._corners, self._flips = np.full((n, 2), 0.5), np.zeros(n, dtype=bool)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        images, (inverse_depth, mask) = self.__getitems__([index])
        return images[0], (inverse_depth[0], mask[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A whole batch.

        Returns:
            Images float32 ``[batch, 3, resolution, resolution]``; inverse depth, float32 ``[batch, 1, resolution,
            resolution]``, and a bool mask of the same shape that says where it is known. The inverse depth is in 1/m
            for depth maps in metres, otherwise relative in [0, 1].
        """
        size = self.resolution
        images = np.empty((len(indices), size, size, 3), dtype=np.uint8)
        inverse_depth = np.empty((len(indices), 1, size, size), dtype=np.float32)
        for row, index in enumerate(indices):
            picture, depth = self.pictures[index]
            spare = np.array(depth.shape) - size
            top, left = (self._corners[index] * (spare + 1)).astype(int)
            window = slice(top, top + size), slice(left, left + size)
            turn = slice(None, None, -1 if self._flips[index] else 1)
            images[row] = picture[window][:, turn]
            inverse_depth[row, 0] = depth[window][:, turn]
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        target = torch.from_numpy(inverse_depth)
        return pixels.div_(255).sub_(self._mean).div_(self._std), (target, target > 0)


class _Found(NamedTuple):
    """What a folder holds: picture and depth map of each pair, whether depth is in metres, the bits of deep grey."""

    train: list[tuple[Path, Path]]
    val: list[tuple[Path, Path]]
    metric: bool
    bits: int


class DepthFolderDataModule(EpochDataModule):
    """Monocular depth estimation from folders laid out as NYU Depth V2 or ReDWeb.

    NYU style: pictures in ``images``, depth maps in ``depths`` (metres = value x ``metres_per_unit``), the names of
    each split in ``train.txt`` and ``val.txt`` (or ``test.txt``, where there is no ``val.txt``), one a line. ReDWeb
    style: pictures in ``Imgs``, relative inverse depth (larger is nearer) in ``RDs``. Where there are no lists, every
    tenth pair in the order of names is a validation image. Depth maps are PNG or TIFF files of 8 or 16 bits with the
    proportions of their pictures, at any resolution, and 0 stands for unknown.

    Training images are resized to ``resolution`` along their shorter side, cropped at random to a square and mirrored
    with probability 1/2; of validation images the centre is taken. All are normalised as for ImageNet.

    Args:
        root: the folder; a relative one is looked for below the current folder, then below ``$CATCHMARK_DATA``.
        resolution: height and width of the images, divisible by 32; 384 in MiDaS.
        batch_size: images a step; 8 in the landmark paper's code.
        images: only the first so many training images; None for all.
        val_images: likewise of the validation images.
        metres_per_unit: of depth maps in metres; the default is that of 8 bits over 10 metres.
        cache_megabytes: a split that takes up less memory is decoded once and kept.
        num_workers: processes that make batches.
        seed: of order and augmentation; `reseed` changes it.

    Raises:
        ValueError: a number is out of range.
    """

    in_channels = 3

    def __init__(
        self,
        root: str = "images/nyuv2",
        resolution: int = 384,
        batch_size: int = 8,
        images: int | None = None,
        val_images: int | None = None,
        metres_per_unit: float = 10 / 255,
        cache_megabytes: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, num_workers, seed)
        if resolution < 32 or resolution % 32:
            raise ValueError(f"resolution is {resolution}, a multiple of 32 is needed")
        check_counts(images=images, val_images=val_images)
        if not metres_per_unit > 0:
            raise ValueError(f"metres_per_unit is {metres_per_unit}, more than 0 is needed")
        self.root, self.resolution, self.cache_megabytes = root, resolution, cache_megabytes
        self.images, self.val_images, self.metres_per_unit = images, val_images, metres_per_unit

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"resolution": 32, "images": 48, "val_images": 8}

    @property
    def num_classes(self) -> int:
        """0, for a depth map takes the place of logits."""
        _ = self._found  # so that data that are not there, or no pairs, are noticed before a search has begun
        return 0

    @property
    def bits(self) -> int:
        """Of grey pictures of more than 8 bits, as `datamodules.pictures.survey` counts them."""
        return self._found.bits

    @property
    def preprocessing(self) -> Preprocessing:
        """What validation does to a picture, but for rounding: there it is scaled first, and then cut."""
        side = (self.resolution, self.resolution)
        return Preprocessing("RGB", "centre", side, mean=IMAGENET_MEAN, std=IMAGENET_STD, bits=self.bits)

    @cached_property
    def train_pictures(self) -> DepthPictures:
        """The training pairs, looked for on first use."""
        return self._pictures(self._found.train)

    @cached_property
    def val_pictures(self) -> DepthPictures:
        """The validation pairs, looked for on first use."""
        return self._pictures(self._found.val)

    def training_set(self, augmented: bool = True) -> DepthBatches:
        """The training images, by index: augmented (`DepthBatches.set_epoch` draws anew), or their centres."""
        return DepthBatches(self.train_pictures, self.resolution, augmented, self.seed)

    def validation_set(self) -> DepthBatches:
        """The centres of the validation images, by index."""
        return DepthBatches(self.val_pictures, self.resolution, augment=False)

    @cached_property
    def _found(self) -> _Found:
        train, val, metric = find_pairs(self.root)
        train, val = train[: self.images], val[: self.val_images]
        self.leaves_out_rest(len(train))  # refuses a single image before a search has begun
        pairs = train + val
        for pair in spaced(pairs):
            _check_pair(*pair)
        survey([depth for _, depth in pairs], scaled=False)
        return _Found(train, val, metric, survey([picture for picture, _ in pairs]))

    def _pictures(self, files: list[tuple[Path, Path]]) -> DepthPictures:
        return DepthPictures(
            files,
            self.resolution,
            self.metres_per_unit if self._found.metric else None,
            self.cache_megabytes * 2**20,
            self._found.bits,
        )


def find_pairs(root: str) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]], bool]:
    """Picture and depth map of every training and every validation pair, and whether depth is in metres.

    Args:
        root: the folder; a relative one is looked for below the current folder, then below ``$CATCHMARK_DATA``.

    Raises:
        FileNotFoundError: there is no such folder, or it has neither layout; says what to download.
        ValueError: a list names a pair that is not there, or a split is empty.
    """
    for folder in locations(root):
        for pictures, depths, metric in _LAYOUTS:
            if (folder / pictures).is_dir() and (folder / depths).is_dir():
                return *_split(folder, _by_name(folder / pictures), _by_name(folder / depths)), metric
    raise FileNotFoundError(f"no depth images in '{Path(root).expanduser()}'{looked_in(root)}; {_CURE}")


def _by_name(folder: Path) -> dict[str, Path]:
    files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES)
    return {path.stem: path for path in files if not path.name.startswith(".")}


def _split(folder: Path, pictures: dict[str, Path], depths: dict[str, Path]) -> tuple[list, list]:
    """Pairs of both splits."""
    lists = {path.stem.lower(): path for path in folder.iterdir() if path.suffix.lower() == ".txt"}
    train_list, val_list, test_list = (_list_of(split, lists) for split in SPLITS)
    held_out_list = val_list or test_list
    if train_list is not None and held_out_list is not None:
        names = [
            [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            for file in (train_list, held_out_list)
        ]
    elif train_list is not None or held_out_list is not None:
        raise ValueError(f"{folder} has {(train_list or held_out_list).name} alone; train.txt and val.txt go together")  # type: ignore[union-attr]
    else:
        both = [name for name in pictures if name in depths]
        names = [[name for k, name in enumerate(both) if k % HELD_OUT < HELD_OUT - 1], both[HELD_OUT - 1 :: HELD_OUT]]
    splits = []
    for split, of_split in zip(("training", "validation"), names, strict=True):
        pairs = []
        for name in of_split:
            name = name if name in pictures else Path(name).stem
            if name not in pictures or name not in depths:
                raise ValueError(f"{folder}: '{name}' of the {split} list lacks its picture or its depth map")
            pairs.append((pictures[name], depths[name]))
        if not pairs:
            raise ValueError(f"{folder} has no {split} pairs; {_CURE}")
        splits.append(pairs)
    return splits[0], splits[1]


def _list_of(split: str, lists: dict[str, Path]) -> Path | None:
    found = [lists[name] for name in SPLITS[split] if name in lists]
    if len(found) > 1:
        raise ValueError(f"{found[0].parent} has {found[0].name} and {found[1].name}, one of them is needed")
    return found[0] if found else None


def _check_pair(picture_file: Path, depth_file: Path) -> None:
    """Refuse, by the headers of both files, a depth map that does not lie on its picture."""
    with opened(picture_file) as picture:
        seen, turned = upright_size(picture), orientation_of(picture)
    with opened(depth_file) as depth:
        channels, mode = len(depth.getbands()), depth.mode
        size, depth_turned = upright_size(depth), orientation_of(depth)
    if channels != 1:
        raise ValueError(f"{depth_file} has {channels} channels, a depth map has one")
    if mode == "1":
        raise ValueError(f"{depth_file} has 1 bit, a depth map has 8 or 16")
    _check_shapes(picture_file, seen, depth_file, size)
    # A map without EXIF data may lie as the picture is stored or as it is seen, unless it has one of two shapes.
    if turned != depth_turned and (turned < 5 or depth_turned > 1 or _same_aspect(seen[::-1], size)):
        raise ValueError(f"EXIF data turn {picture_file} and {depth_file} differently; save both upright")


def _check_shapes(picture_file: Path, picture: tuple[int, int], depth_file: Path, depth: tuple[int, int]) -> None:
    """Refuse different proportions of (width, height)."""
    if not _same_aspect(picture, depth):
        raise ValueError(
            f"{depth_file} has {depth[0]}x{depth[1]} pixels and {picture_file.name} {picture[0]}x{picture[1]}, a depth "
            "map must have its picture's proportions"
        )


def _same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether either is the other at another resolution, of which sides are rounded to less than a pixel."""
    return abs(one[0] * other[1] - one[1] * other[0]) < max(*one, *other)


def _read_depth(file: Path) -> np.ndarray:
    """Uint8 or uint16 ``[height, width]``."""
    with opened(file) as picture:
        seen = upright(picture)
        values = deep_values(seen) if is_deep(seen) else np.asarray(seen.convert("RGB") if seen.mode == "P" else seen)
    if seen.mode == "P" and (values == values[..., :1]).all():
        return values[..., 0]  # a palette of grey
    if values.ndim != 2:
        raise ValueError(f"{file} has {values.shape[-1]} channels, a depth map has one")
    return values
