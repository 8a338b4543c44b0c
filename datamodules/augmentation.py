"""What training images go through beside crops and mirrors, one mechanism for all data of classification.

Everything is a pure function of (seed, epoch, image), but for who is mixed with whom: an image is mixed with the one
before it in its batch, so that no part of the data sees images of another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datamodules.randaugment import STRONGEST, randaugment

_AREAS, _RATIOS = (0.02, 0.33), (0.3, 3.3)
"""Share of the image that is erased, and its height by its width (Zhong et al. 2020, random erasing)."""
_PIXELS, _BATCH = 1, 2
"""Tell the streams of an image apart; the data set's own has no such number."""


@dataclass(frozen=True)
class Augmentation:
    """Which of the customary augmentations of image classification, and how strongly; all of them are off by default.

    The order is: crop and mirror of the data module, RandAugment, normalisation, cutout and erasing (to the mean of the
    data), mixup or cutmix. Mixed images have soft targets: float32 ``[batch, classes]`` in the place of labels.

    Attributes:
        randaugment: operations an image (RandAugment, Cubuk et al. 2020; 2 is customary).
        magnitude: of these operations, 0 to 30; 9 is torchvision's default.
        cutout: side in pixels of a square about a random place (DeVries and Taylor 2017: 16 for CIFAR-10); 0 for none.
        erasing: how likely a random rectangle of 2 to 33% of the image is erased (Zhong et al. 2020; 0.25 and 0.5 are
            customary).
        mixup: of Beta(mixup, mixup), from which the weight of the other image is drawn (Zhang et al. 2018: 0.2 for
            ImageNet, 1.0 for CIFAR-10); 0 for none.
        cutmix: of Beta(cutmix, cutmix), from which the share of the other image's rectangle is drawn (Yun et al. 2019:
            1.0); 0 for none. With both, each image has the one or the other, evenly.
        mixed: how likely an image is mixed at all.

    Raises:
        ValueError: a number is out of range.
    """

    randaugment: int = 0
    magnitude: int = 9
    cutout: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixed: float = 1.0

    def __post_init__(self) -> None:
        for key in ("randaugment", "cutout", "mixup", "cutmix"):
            if getattr(self, key) < 0:
                raise ValueError(f"augmentation: {key} is {getattr(self, key)}, 0 (none) or more is allowed")
        if not 0 <= self.magnitude <= STRONGEST:
            raise ValueError(f"augmentation: magnitude is {self.magnitude}, 0 to {STRONGEST} are allowed")
        for key in ("erasing", "mixed"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"augmentation: {key} is {getattr(self, key)}, it must lie in [0, 1]")

    @property
    def mixes(self) -> bool:
        """Whether targets are soft."""
        return bool(self.mixup or self.cutmix)


@dataclass
class Augmenter:
    """The augmentation of a training set.

    Attributes:
        settings: which.
        classes: of the data set.
        seed: of all draws.
        epoch: which it is.
    """

    settings: Augmentation
    classes: int
    seed: int
    epoch: int = 0

    def pixels(self, image: Tensor, index: int) -> Tensor:
        """What is done to pixels, uint8 ``[channels, height, width]``, before they are normalised."""
        if not self.settings.randaugment:
            return image
        return randaugment(image, self.settings.randaugment, self.settings.magnitude, self._generator(index, _PIXELS))

    def batch(self, images: Tensor, labels: Tensor, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What is done to a normalised batch.

        Args:
            images: float32 ``[batch, channels, height, width]``; changed in place.
            labels: int64 ``[batch]``.
            indices: which images of the data set they are.

        Returns:
            Images, and labels, or where images are mixed the weight of each class, float32 ``[batch, classes]``.
        """
        chosen = self.settings
        if not (chosen.cutout or chosen.erasing or chosen.mixes):
            return images, labels
        draws = [self._generator(index, _BATCH) for index in indices]
        size = (int(images.shape[-2]), int(images.shape[-1]))
        for image, draw in zip(images, draws, strict=True):
            if chosen.cutout:
                _erase(image, _box(chosen.cutout, chosen.cutout, *size, draw))
            if chosen.erasing and draw.random() < chosen.erasing:
                _erase(image, _rectangle(*size, draw))
        if not chosen.mixes:
            return images, labels
        return self._mix(images, labels, draws)

    def _mix(self, images: Tensor, labels: Tensor, draws: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor]:
        """Each image with the one before it."""
        others, shares = images.roll(1, 0), torch.zeros(len(images))
        height, width = int(images.shape[-2]), int(images.shape[-1])
        for place, draw in enumerate(draws):
            if draw.random() >= self.settings.mixed:
                continue
            cut = draw.random() < 0.5 if self.settings.mixup and self.settings.cutmix else bool(self.settings.cutmix)
            alpha = self.settings.cutmix if cut else self.settings.mixup
            share = float(draw.beta(alpha, alpha))
            if cut:
                top, bottom, left, right = box = _box(height * share**0.5, width * share**0.5, height, width, draw)
                images[place][_within(box)] = others[place][_within(box)]
                share = (bottom - top) * (right - left) / (height * width)  # what is left of it inside the image
            else:
                images[place].lerp_(others[place], share)
            shares[place] = share
        targets = torch.nn.functional.one_hot(labels, self.classes).float()
        return images, targets.lerp(targets.roll(1, 0), shares[:, None])

    def _generator(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, index, stream))


Box = tuple[int, int, int, int]
"""First row and the one behind the last, first column and the one behind the last."""


def _box(high: float, wide: float, height: int, width: int, draw: np.random.Generator) -> Box:
    """A rectangle about a place anywhere in the image, whose part outside is cut off."""
    row, column = draw.integers(height), draw.integers(width)
    top, left = round(row - high / 2), round(column - wide / 2)
    bottom, right = top + round(high), left + round(wide)
    return max(0, top), min(height, max(0, bottom)), max(0, left), min(width, max(0, right))


def _rectangle(height: int, width: int, draw: np.random.Generator) -> Box:
    """A rectangle that lies inside of the image; none where ten draws have found none."""
    for _ in range(10):
        area = height * width * draw.uniform(*_AREAS)
        ratio = np.exp(draw.uniform(*np.log(_RATIOS)))
        high, wide = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < high < height and 0 < wide < width:
            top, left = int(draw.integers(height - high + 1)), int(draw.integers(width - wide + 1))
            return top, top + high, left, left + wide
    return 0, 0, 0, 0


def _erase(image: Tensor, box: Box) -> None:
    """To the mean of the data, which is 0."""
    image[_within(box)] = 0.0


def _within(box: Box) -> tuple[slice, slice, slice]:
    top, bottom, left, right = box
    return slice(None), slice(top, bottom), slice(left, right)
