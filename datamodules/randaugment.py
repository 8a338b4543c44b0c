"""RandAugment with draws of one's own: the operations and their strengths are torchvision's, the generator is given.

torchvision draws from torch's global state, so what it does to an image would depend on the images before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

STRONGEST = 30
"""The largest magnitude; the paper's scale ends there (Cubuk et al. 2020, RandAugment, as torchvision has it)."""


def _affine(image: Tensor, translate: list[int], shear: list[float], center: list[float] | None = None) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.affine(image, angle=0.0, translate=translate, scale=1.0, shear=shear, center=center)


def _shear(image: Tensor, amount: float, axis: int) -> Tensor:
    """By ``amount`` pixels a row, as AutoAugment's published code means it, about the upper left corner."""
    angle = math.degrees(math.atan(amount))
    return _affine(image, [0, 0], [0.0, angle] if axis else [angle, 0.0], [0.0, 0.0])


def _translate(image: Tensor, amount: float, axis: int) -> Tensor:
    return _affine(image, [0, int(amount)] if axis else [int(amount), 0], [0.0, 0.0])


def _v2(name: str) -> Callable[[Tensor, float], Tensor]:
    """An operation of torchvision by its name, imported when it is used."""

    def change(image: Tensor, amount: float) -> Tensor:
        from torchvision.transforms.v2 import functional

        return getattr(functional, name)(image, amount)

    return change


def _plain(name: str) -> Callable[[Tensor, float], Tensor]:
    def change(image: Tensor, amount: float) -> Tensor:
        from torchvision.transforms.v2 import functional

        return getattr(functional, name)(image)

    return change


def _factor(name: str) -> Callable[[Tensor, float], Tensor]:
    """An operation that takes a factor, 1 for no change."""
    change = _v2(name)
    return lambda image, amount: change(image, 1.0 + amount)


Change = Callable[[Tensor, float], Tensor]
Strength = Callable[[float, int, int], float]
"""Of the magnitude as a share of the strongest, and the image's height and width."""

OPERATIONS: dict[str, tuple[Change, Strength, bool]] = {
    "Identity": (lambda image, amount: image, lambda share, height, width: 0.0, False),
    "ShearX": (lambda image, amount: _shear(image, amount, 0), lambda share, height, width: 0.3 * share, True),
    "ShearY": (lambda image, amount: _shear(image, amount, 1), lambda share, height, width: 0.3 * share, True),
    "TranslateX": (
        lambda image, amount: _translate(image, amount, 0),
        lambda share, height, width: 150 / 331 * width * share,
        True,
    ),
    "TranslateY": (
        lambda image, amount: _translate(image, amount, 1),
        lambda share, height, width: 150 / 331 * height * share,
        True,
    ),
    "Rotate": (_v2("rotate"), lambda share, height, width: 30 * share, True),
    "Brightness": (_factor("adjust_brightness"), lambda share, height, width: 0.9 * share, True),
    "Color": (_factor("adjust_saturation"), lambda share, height, width: 0.9 * share, True),
    "Contrast": (_factor("adjust_contrast"), lambda share, height, width: 0.9 * share, True),
    "Sharpness": (_factor("adjust_sharpness"), lambda share, height, width: 0.9 * share, True),
    "Posterize": (
        lambda image, amount: _v2("posterize")(image, round(amount)),
        lambda share, height, width: 8 - 4 * share,
        False,
    ),
    "Solarize": (_v2("solarize"), lambda share, height, width: 255 * (1 - share), False),
    "AutoContrast": (_plain("autocontrast"), lambda share, height, width: 0.0, False),
    "Equalize": (_plain("equalize"), lambda share, height, width: 0.0, False),
}
"""Of each operation what it does, how strongly, and whether that has a random sign."""
_NAMES = tuple(OPERATIONS)


def changed(image: Tensor, name: str, magnitude: int, negative: bool = False) -> Tensor:
    """An image after one operation.

    Args:
        image: uint8 ``[channels, height, width]``, of 1 or 3 channels.
        name: of the operation.
        magnitude: 0 to 30.
        negative: the other way round, where the operation has two.
    """
    change, strength, signed = OPERATIONS[name]
    amount = strength(magnitude / STRONGEST, *image.shape[-2:])
    return change(image, -amount if signed and negative else amount)


def randaugment(image: Tensor, operations: int, magnitude: int, generator: np.random.Generator) -> Tensor:
    """An image after some operations, each drawn from all of them.

    Args:
        image: uint8 ``[channels, height, width]``, of 1 or 3 channels.
        operations: how many.
        magnitude: of each, 0 to 30.
        generator: of the draws.
    """
    for _ in range(operations):
        name, negative = _NAMES[generator.integers(len(_NAMES))], bool(generator.integers(2))
        image = changed(image, name, magnitude, negative)
    return image
