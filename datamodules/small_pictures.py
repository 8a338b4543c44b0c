"""Pictures of a folder as small squares in memory: what a search over one's own classes trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from datamodules.arrays import ArrayDataModule
from datamodules.augmentation import Augmentation
from datamodules.class_folders import divide
from datamodules.epochs import check_counts
from datamodules.image_arrays import ImageArrays
from datamodules.image_folder import read_division
from datamodules.locations import locations, looked_in


class SmallPicturesDataModule(ArrayDataModule):
    """Image classification from a folder of pictures, which are read once, squeezed to squares and kept in memory.

    The networks of a search are many and train for seconds, in which decoding pictures again for each would be most of
    the work. For pictures that do not fit into memory there is `ImageFolderDataModule`. Without a folder for validation
    every fifth picture of each class is held out (`datamodules.class_folders.divide`).

    Args:
        root: has ``train`` and ``val`` with a sub-folder a class, or directly a sub-folder a class. A relative one is
            looked for below the current folder, then below ``$CATCHMARK_DATA``.
        resolution: height and width, in pixels.
        batch_size: images a step.
        flip: whether training images are mirrored at random; switch it off where left and right differ, as in digits.
        padding: by how many pixels training images may be shifted; None for an eighth of the resolution.
        classes: only the first so many classes, in the order of their folders' names; None for all.
        images_per_class: only the first so many training images of each class, and as many of validation; None for all.
        left_out: pictures that are passed over, by their paths below ``root``.
        num_workers: processes that make batches.
        seed: of order, shifts and mirrors; `reseed` changes it.
        augmentation: see `ArrayDataModule`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        root: str,
        resolution: int = 32,
        batch_size: int = 128,
        flip: bool = True,
        padding: int | None = None,
        classes: int | None = None,
        images_per_class: int | None = None,
        left_out: list[str] | None = None,
        num_workers: int = 0,
        seed: int = 0,
        augmentation: Optional[Augmentation] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
    ):
        super().__init__(root, batch_size, flip, padding, num_workers=num_workers, seed=seed, augmentation=augmentation)
        check_counts(resolution=resolution, images_per_class=images_per_class)
        if classes is not None and classes < 2:
            raise ValueError(f"classes is {classes}, at least 2 are needed")
        self.root, self.first_classes, self.left_out = root, classes, left_out or []
        self.images_per_class, self._squeezed_to = images_per_class, resolution

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"resolution": 8, "images_per_class": 8}

    def load(self) -> ImageArrays:
        """The pictures at this resolution."""
        folder = next((each for each in locations(self.root) if each.is_dir()), None)
        if folder is None:
            raise FileNotFoundError(
                f"no folder '{Path(self.root).expanduser()}'{looked_in(self.root)}; name one that has a sub-folder of "
                "pictures for each class, or that has such in train and val"
            )
        found = divide(folder, self.first_classes, self.left_out)
        most = self.images_per_class
        found = found._replace(train=[each[:most] for each in found.train], val=[each[:most] for each in found.val])
        return read_division(found, self._squeezed_to, folder.resolve().name)
