"""What an archive of images holds, and how a recipe names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from search.recipes.drafts.draft import batch_size_for, quoted, table, unequal


def about_images(archive: Path) -> list[str]:
    """Counts of each class, and the lines of a recipe.

    Args:
        archive: an ``.npz`` file of images, as `datamodules.npz.load_npz` reads it.
    """
    from datamodules.npz import load_npz

    arrays = load_npz(archive)
    train, val = (
        np.bincount(labels, minlength=arrays.num_classes).tolist()
        for labels in (arrays.train_labels, arrays.val_labels)
    )
    height, width = arrays.train_images.shape[1:3]
    lines = [
        f"{sum(train):,} images to train on and {sum(val):,} for validation, {width}x{height} pixels, "
        f"{'grey' if arrays.in_channels == 1 else f'{arrays.in_channels} channels'}",
        *table({"train": train, "val": val}, arrays.classes),
        *unequal(arrays.classes, train, "images to train on"),
    ]
    arguments = f"{{arrays: {quoted(str(archive))}, batch_size: {batch_size_for(sum(train), 256)}}}"
    return [
        *(f"  {line}" for line in lines),
        "in a recipe:",
        f"  data: {{class_path: ArrayDataModule, init_args: {arguments}}}",
    ]
