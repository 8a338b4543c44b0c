"""N-class sub-data-sets: the cheap, related tasks that CATCH meta-trains on (CATCH, sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from datamodules.image_arrays import ImageArrays, resize


def subset(
    arrays: ImageArrays,
    classes: Sequence[int],
    resolution: int,
    examples_per_class: int | None = None,
    generator: torch.Generator | None = None,
) -> ImageArrays:
    """Some classes of a data set, at a resolution.

    Args:
        arrays: where the classes come from.
        classes: labels in ``arrays``; the k-th of them becomes label k.
        resolution: height and width of the new images, in pixels.
        examples_per_class: at most this many images of each class, in training and in validation; None for all.
        generator: chooses those images; without one the first ones are taken.

    Returns:
        A data set of ``len(classes)`` classes. Images stay in their old order.

    Raises:
        ValueError: a class is unknown or named twice, or there are fewer than two, or no images are asked for.
    """
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"classes are {list(classes)}, at least two different ones are needed")
    unknown = [label for label in classes if not 0 <= label < arrays.num_classes]
    if unknown:
        raise ValueError(f"classes {unknown} are not in {arrays.name}, which has 0 to {arrays.num_classes - 1}")
    if examples_per_class is not None and examples_per_class < 1:
        raise ValueError(f"examples_per_class is {examples_per_class}, at least 1 is needed")
    names = tuple(arrays.classes[label] for label in classes)
    parts = []
    for images, labels in ((arrays.train_images, arrays.train_labels), (arrays.val_images, arrays.val_labels)):
        chosen = _choose(labels, classes, examples_per_class, generator)
        new_label = np.full(arrays.num_classes, -1, dtype=np.int64)
        new_label[list(classes)] = np.arange(len(classes))
        parts += [resize(images[chosen], resolution), new_label[labels[chosen]]]
    train_images, train_labels, val_images, val_labels = parts
    name = describe(arrays, classes, resolution)
    return ImageArrays(train_images, train_labels, val_images, val_labels, names, name)


def describe(arrays: ImageArrays, classes: Sequence[int], resolution: int) -> str:
    """One line about a sub-data-set, for instance ``5 classes (0, 3, 4, 7, 9) of digits at 8x8``."""
    names = [arrays.classes[label] for label in classes]
    shown = ", ".join(names) if len(names) <= 10 else ", ".join([*names[:9], f"and {len(names) - 9} more"])
    return f"{len(names)} classes ({shown}) of {arrays.name} at {resolution}x{resolution}"


def _choose(
    labels: np.ndarray, classes: Sequence[int], examples_per_class: int | None, generator: torch.Generator | None
) -> np.ndarray:
    """Which images to keep, in ascending order: int64 ``[kept]``."""
    kept = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        if examples_per_class is not None:
            if generator is not None:
                members = members[torch.randperm(len(members), generator=generator).numpy()]
            members = members[:examples_per_class]
        kept.append(members)
    return np.sort(np.concatenate(kept))
