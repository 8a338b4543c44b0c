"""Pictures composed of handwritten digits, of which everything is known: boxes, masks, classes and depth.

A digit is a flat card that faces the camera at some distance. It is larger the nearer it is, and hides what is behind.
Behind all of them is a tilted plane, whose inverse depth is linear in the pixel's coordinates, as that of any plane is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

CLASSES = ("background", *(str(digit) for digit in range(10)))
INK = 0.41
"""From this share of full ink on a pixel belongs to a digit. No pixel of a digit at its own size has just that much."""
_SOFT_EDGE = 0.2  # of ink below and above, over which a digit fades into what is behind it
_DIGIT_INVERSE_DEPTH = (0.4, 1.0)  # 1/m
_PLANE_INVERSE_DEPTH = (0.12, 0.3)  # 1/m, behind every digit
_SIDE = 0.5  # of the picture, for a digit of medium size at 1 m
_LEAST_VISIBLE = 0.6  # of a digit's pixels, so that it can still be read
_TRIES = 20  # to find a place for a digit that leaves enough of the others to be seen
_CONTRAST = 110.0  # distance of colours that is enough to tell a digit from what is behind it


class Placement(NamedTuple):
    """One digit of a scene.

    Attributes:
        digit: its row in the images of digits.
        label: which digit it is, 0 to 9.
        left: of its 8x8 card on the picture, in pixels.
        top: likewise.
        side: height and width of the card, in pixels.
        inverse_depth: 1/m.
        colour: red, green and blue, 0 to 255.
    """

    digit: int
    label: int
    left: int
    top: int
    side: int
    inverse_depth: float
    colour: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures and all that is known of them. The digits of a scene are in order of distance, the nearest one last.

    Attributes:
        images: uint8 ``[n, size, size, 3]``, RGB.
        boxes: of each scene, float32 ``[digits, 4]``: left, top, right and bottom edge of what is visible, in pixels.
        labels: of each scene, int64 ``[digits]``: which digit it is, 0 to 9.
        instance_map: uint8 ``[n, size, size]``: 0 for the plane, ``k`` for the ``k``-th digit of the scene, from 1 on.
        class_map: uint8 ``[n, size, size]``: an index of `CLASSES`.
        inverse_depth: float32 ``[n, size, size]``, 1/m.
        plane: float64 ``[n, 3]``: inverse depth of the plane in the top left pixel, and what it gains per column and
            per row.
        placements: of each scene, what it was composed of.
    """

    images: np.ndarray
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    instance_map: np.ndarray
    class_map: np.ndarray
    inverse_depth: np.ndarray
    plane: np.ndarray
    placements: list[list[Placement]]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def nearest(self) -> np.ndarray:
        """The label of the nearest digit of each scene, of which nothing is hidden: int64 ``[n]``."""
        return np.array([labels[-1] for labels in self.labels], dtype=np.int64)


def compose_scenes(
    digits: np.ndarray, labels: np.ndarray, count: int, seed: int, size: int = 64, most_digits: int = 4
) -> Scenes:
    """Compose pictures of digits.

    A scene is a function of (digits, seed, its number, size, most digits), however many there are.

    Args:
        digits: uint8 ``[m, 8, 8]``, ink from 0 to 255.
        labels: int64 ``[m]``, 0 to 9.
        count: scenes to compose.
        seed: of all that is drawn.
        size: height and width of a picture, in pixels.
        most_digits: a scene has 1 to this many, as often each; fewer where there is no room.

    Raises:
        ValueError: a number is out of range.
    """
    for key, number, least in (("scenes", count, 1), ("size", size, 32), ("digits", most_digits, 1), ("seed", seed, 0)):
        if number < least:
            raise ValueError(f"{key} is {number}, at least {least} is needed")
    if most_digits > 255:
        raise ValueError(f"digits is {most_digits}, at most 255 are possible")
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    instance_map = np.zeros((count, size, size), dtype=np.uint8)
    class_map = np.zeros((count, size, size), dtype=np.uint8)
    inverse_depth = np.empty((count, size, size), dtype=np.float32)
    plane = np.empty((count, 3))
    boxes, all_labels, placements = [], [], []
    for scene in range(count):
        rng = np.random.default_rng((seed, scene))
        plane[scene], picture, behind, colours = _draw_plane(rng, size)
        placed = _place(rng, digits, labels, size, most_digits, picture, instance_map[scene], colours)
        images[scene] = np.rint(np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255))
        class_map[scene] = np.array([0, *(each.label + 1 for each in placed)], dtype=np.uint8)[instance_map[scene]]
        distances = np.array([0, *(each.inverse_depth for each in placed)])[instance_map[scene]]
        inverse_depth[scene] = np.where(instance_map[scene] > 0, distances, behind)
        boxes.append(np.stack([_box(instance_map[scene] == k + 1) for k in range(len(placed))]))
        all_labels.append(np.array([each.label for each in placed], dtype=np.int64))
        placements.append(placed)
    return Scenes(images, boxes, all_labels, instance_map, class_map, inverse_depth, plane, placements)


@lru_cache(maxsize=8)
def digit_scenes(split: Literal["train", "val"], count: int, size: int, most_digits: int, seed: int) -> Scenes:
    """Scenes of scikit-learn's digits, composed once in a process. No digit image is in scenes of both splits.

    Args:
        split: of the digits.
        count: scenes to compose.
        size: height and width of a picture, in pixels.
        most_digits: of a scene.
        seed: of all that is drawn.
    """
    from datamodules.digits import load_digits_arrays

    arrays = load_digits_arrays()
    if split == "train":
        return compose_scenes(arrays.train_images[..., 0], arrays.train_labels, count, seed, size, most_digits)
    return compose_scenes(arrays.val_images[..., 0], arrays.val_labels, count, seed, size, most_digits)


def _place(
    rng: np.random.Generator,
    digits: np.ndarray,
    labels: np.ndarray,
    size: int,
    most_digits: int,
    picture: np.ndarray,
    instances: np.ndarray,
    colours: list[np.ndarray],
) -> list[Placement]:
    """Draw digits onto the picture and the map of instances, the farthest first."""
    wanted = int(rng.integers(1, most_digits + 1))
    distances = np.sort(rng.uniform(*_DIGIT_INVERSE_DEPTH, wanted))
    placed: list[Placement] = []
    pixels = [0]  # of each digit, hidden or not; that of the plane is never asked for
    for inverse_depth in distances.tolist():
        digit = int(rng.integers(len(digits)))
        side = round(size * _SIDE * inverse_depth * rng.uniform(0.9, 1.1))
        weights = _interpolation(side)
        ink = weights @ (digits[digit] / 255) @ weights.T
        mask = ink >= INK
        corners = rng.integers(0, size - side + 1, (_TRIES, 2)).tolist()
        colour = _pick_colour(rng, colours)
        for top, left in corners:
            window = slice(top, top + side), slice(left, left + side)
            after = np.where(mask, len(placed) + 1, instances[window])
            seen = np.bincount(instances.ravel(), minlength=len(pixels))
            seen -= np.bincount(instances[window].ravel(), minlength=len(pixels))
            seen += np.bincount(after.ravel(), minlength=len(pixels) + 1)[: len(pixels)]
            if (seen[1:] < _LEAST_VISIBLE * np.array(pixels[1:])).any():
                continue
            instances[window] = after
            alpha = np.clip((ink - INK + _SOFT_EDGE) / (2 * _SOFT_EDGE), 0, 1)[..., None]
            # A stroke is darker where its ink is thin.
            picture[window] += alpha * (colour * (0.7 + 0.3 * ink[..., None]) - picture[window])
            red, green, blue = (int(channel) for channel in colour)
            label = int(labels[digit])
            placed.append(Placement(digit, label, left, top, side, inverse_depth, (red, green, blue)))
            pixels.append(int(mask.sum()))
            colours.append(colour)
            break
    return placed


def _draw_plane(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """A tilted plane.

    Returns:
        Its coefficients ``[3]``; the picture, float64 ``[size, size, 3]``; its inverse depth ``[size, size]``; its
        colours, near and far.
    """
    rows, columns = np.mgrid[:size, :size].astype(float)
    angle, (least, most) = rng.uniform(0, 2 * np.pi), np.sort(rng.uniform(*_PLANE_INVERSE_DEPTH, 2))
    slope = np.array([np.cos(angle), np.sin(angle)])
    slope *= (most - least) / (np.abs(slope).sum() * (size - 1))
    corner = least - (size - 1) * np.minimum(slope, 0).sum()
    inverse_depth = corner + slope[0] * columns + slope[1] * rows
    near = rng.uniform(15, 105, 3)
    far = np.clip(near + rng.normal(0, 25, 3), 0, 120)
    # The colour is that of the near end at 1/0.3 m and that of the far end at 1/0.12 m, so it tells the distance.
    share = (inverse_depth - _PLANE_INVERSE_DEPTH[0]) / (_PLANE_INVERSE_DEPTH[1] - _PLANE_INVERSE_DEPTH[0])
    texture = _draw_texture(rng, rows, columns) * rng.uniform(5, 18)
    picture = far + share[..., None] * (near - far) + texture[..., None]
    return np.array([corner, *slope]), picture, inverse_depth, [near, far]


def _draw_texture(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Stripes, squares or blobs between -1 and 1, or nothing: float64 ``[size, size]``."""
    size, kind = len(rows), int(rng.integers(4))
    if kind == 0:
        return np.zeros_like(rows)
    if kind == 1:
        blobs, weights = rng.uniform(-1, 1, (9, 9)), _interpolation(size, 9)
        return weights @ blobs @ weights.T
    angle, phase, length = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(size / 12, size / 4)
    along = (columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / length + phase
    if kind == 2:
        return np.sin(along)
    across = (rows * np.cos(angle) - columns * np.sin(angle)) * 2 * np.pi / length
    return np.sign(np.sin(along) * np.sin(across))


def _pick_colour(rng: np.random.Generator, others: list[np.ndarray]) -> np.ndarray:
    """A light colour that stands out: the first of some with enough contrast, otherwise the one with the most."""
    candidates = rng.uniform(60, 256, (16, 3))
    # The strongest channel at full strength: lighter than any plane, so that a small network soon learns to read.
    candidates *= 255 / candidates.max(axis=1, keepdims=True)
    contrast = np.linalg.norm(candidates[:, None] - np.stack(others), axis=-1).min(axis=1)
    enough = np.flatnonzero(contrast >= _CONTRAST)
    return np.floor(candidates[enough[0] if len(enough) else contrast.argmax()])


@lru_cache(maxsize=512)
def _interpolation(size: int, old: int = 8) -> np.ndarray:
    """The matrix that interpolates ``old`` values linearly to ``size``, pixel centres on pixel centres."""
    position = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    left = np.minimum(position.astype(int), old - 2)
    weights = np.zeros((size, old))
    weights[np.arange(size), left] = 1 - (position - left)
    weights[np.arange(size), left + 1] = position - left
    return weights


def _box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)
