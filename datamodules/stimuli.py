"""Pictures that people looked at in an experiment, with how unlike the brain's answers to each pair of them were."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datamodules.archives import find_archive
from datamodules.digits import load_digits_arrays
from lightning_modules.similarity import check_matrix
from lightning_modules.spelling import nearest

DIGITS = "digits"
"""Stimuli that are always there: two pictures of some of scikit-learn's digits, alike where they are the same digit."""
HUMAN_IT = "human_it_92.npz"
"""The 92 objects of Kriegeskorte et al. (Neuron 2008) with the dissimilarities of human IT."""
_GREY = (0.299, 0.587, 0.114)
_CURE = (
    "bring an .npz archive with 'images' (uint8 [n, height, width, 3]) and a matrix of dissimilarities, or set "
    "CATCHMARK_DATA to the folder that has it"
)


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Pictures and what a reference, such as a brain, makes of them.

    Attributes:
        images: uint8 ``[n, height, width, 3]``.
        reference: dissimilarities, float64 ``[n, n]``.
        subjects: of each subject, float64 ``[subjects, n, n]``; None where they are not known.
        name: for messages.
    """

    images: np.ndarray
    reference: Tensor
    subjects: Tensor | None = None
    name: str = "stimuli"

    def batch(
        self, height: int, width: int, channels: int = 3, mean: Sequence[float] = (), std: Sequence[float] = ()
    ) -> Tensor:
        """The pictures as a network takes them.

        A picture keeps its proportions: the whole of it is seen, and its edge goes on to the sides where the network
        wants other proportions (assumed; the stimuli lie on an even grey).

        Args:
            height: in pixels.
            width: in pixels.
            channels: 3, or 1 for grey.
            mean: of each channel, on the scale of 0 to 1, to be subtracted; none for 0.
            std: of each channel, to divide by; none for 1.

        Returns:
            Float32 ``[n, channels, height, width]``, in 0 to 1 where nothing is subtracted.

        Raises:
            ValueError: there are no pictures of so many channels.
        """
        pixels = torch.from_numpy(self.images).permute(0, 3, 1, 2).float() / 255
        scale = min(height / pixels.shape[2], width / pixels.shape[3])
        inner = [
            max(1, min(most, round(scale * size))) for most, size in zip((height, width), pixels.shape[2:], strict=True)
        ]
        pixels = functional.interpolate(pixels, size=inner, mode="bilinear", antialias=True)
        above, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        sides = (left, width - inner[1] - left, above, height - inner[0] - above)
        pixels = functional.pad(pixels, sides, mode="replicate").clamp(0, 1)
        if channels == 1:
            pixels = (pixels * torch.tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
        elif channels != 3:
            raise ValueError(f"{self.name}: networks of 1 or 3 channels can look at them, not of {channels}")
        for values, name in ((mean, "mean"), (std, "std")):
            if values and len(values) != channels:
                raise ValueError(f"{name} has {len(values)} values, {channels} are needed")
        if mean:
            pixels = pixels - torch.tensor(list(mean)).view(1, -1, 1, 1)
        return pixels / torch.tensor(list(std)).view(1, -1, 1, 1) if std else pixels

    def other_views(self) -> Stimuli:
        """The same objects once more: smaller, moved up and to the left, and darker (assumed), for object matching."""
        height, width = self.images.shape[1:3]
        turned = torch.from_numpy(self.images).permute(0, 3, 1, 2).float()
        small = functional.interpolate(turned, scale_factor=0.85, mode="bilinear", antialias=True)
        above, left = round(0.02 * height), round(0.02 * width)
        sides = (left, width - small.shape[3] - left, above, height - small.shape[2] - above)
        moved = 0.8 * functional.pad(small, sides, mode="replicate")
        pixels = moved.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return Stimuli(pixels, self.reference, self.subjects, self.name)


@lru_cache(maxsize=4)
def load_stimuli(
    path: str | PathLike[str] = HUMAN_IT,
    reference: str = "human_it_average",
    sessions: str | None = "human_it_sessions",
) -> Stimuli:
    """Stimuli out of an archive; read once a process.

    Args:
        path: an ``.npz`` file with ``images``, uint8 ``[n, height, width, 3]``; a relative path is looked for below the
            current folder, then below ``$CATCHMARK_DATA``. Or ``digits``, which are always there: two pictures of each
            of five, whose reference says 0 within a digit and 1 between two.
        reference: the array of dissimilarities, ``[n, n]`` or its upper triangle, row by row.
        sessions: the array of each subject's, ``[subjects, n, n]`` or ``[subjects, sessions, n, n]``, of which a
            subject's mean is taken; not needed, and left out where the archive has none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no such arrays, or they do not fit each other.
    """
    if str(path) == DIGITS:
        return _digits()
    found = find_archive(path, "no stimuli", _CURE)
    try:
        with np.load(found, allow_pickle=False) as archive:
            for name in ("images", reference):
                if name not in archive.files:
                    raise ValueError(f"{found} has no array '{name}'{nearest(name, archive.files)}")
            images, matrix = archive["images"], torch.from_numpy(archive[reference])
            subjects = torch.from_numpy(archive[sessions]).double() if sessions in archive.files else None
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{found} is no NumPy .npz archive, or damaged") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"{found}: images are {images.dtype} {list(images.shape)}, uint8 [n, height, width, 3] is needed"
        )
    count = len(images)
    if subjects is not None:
        subjects = subjects.mean(1) if subjects.ndim == 4 else subjects
        if subjects.shape[1:] != (count, count):
            raise ValueError(f"{found}: {sessions} is {list(subjects.shape)}, [subjects, {count}, {count}] is needed")
    return Stimuli(images, check_matrix(matrix, count, f"{found}: {reference}"), subjects, Path(found).stem)


def _digits() -> Stimuli:
    arrays = load_digits_arrays(8)
    chosen = np.concatenate([np.flatnonzero(arrays.val_labels == digit)[:2] for digit in range(5)])
    images = np.repeat(arrays.val_images[chosen], 3, axis=3)
    labels = torch.from_numpy(arrays.val_labels[chosen])
    return Stimuli(images, (labels[:, None] != labels).double(), None, DIGITS)
