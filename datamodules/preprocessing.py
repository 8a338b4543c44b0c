"""What is done to a picture before a network sees it, outside of training: read, sized, scaled and normalised.

A data module that knows says so as ``preprocessing``; it then goes with the trained network, into its description and
into exported files, and pictures of any origin are made ready as the validation images were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from datamodules.pictures import as_rgb, opened, upright_size

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = {"RGB": 3, "BGR": 3, "L": 1}
"""Channels of a picture by its colour order; ``L`` is grey."""
RESIZES = ("squeeze", "centre", "fit")
RESAMPLES = ("box", "bilinear")


@dataclass(frozen=True)
class Preprocessing:
    """From a picture to what a network takes: ``(value / scale - mean) / std`` of every channel.

    Attributes:
        colours: the order of the channels: ``RGB``, ``BGR`` or ``L``, grey.
        resize: ``squeeze`` both sides to ``size``; ``centre``: a central square, of which ``size`` is made; ``fit``:
            scaled, with its proportions, to as large as its longer and shorter side still fit ``size``.
        size: height and width in pixels; of ``fit`` the longer and the shorter side.
        resample: how: ``box`` averages, ``bilinear`` interpolates, with antialiasing where it shrinks; of ``fit``
            OpenCV's, without.
        crop: side of the central square, as a share of the picture's shorter side.
        scale: what values from 0 to 255 are divided by.
        mean: of each channel, after that; None where the network's own module normalises.
        std: likewise.
        bits: of grey pictures of more than 8 bits (`datamodules.pictures.survey`).

    Raises:
        ValueError: a value is none of those.
    """

    colours: str
    resize: str
    size: tuple[int, int]
    resample: str = "bilinear"
    crop: float = 1.0
    scale: float = 255.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bits: int = 16

    def __post_init__(self) -> None:
        """Refuse what nothing could be done with."""
        for key, value, known in (
            ("colours", self.colours, COLOURS),
            ("resize", self.resize, RESIZES),
            ("resample", self.resample, RESAMPLES),
        ):
            if value not in known:
                raise ValueError(f"preprocessing: {key} is {value!r}, allowed: {', '.join(known)}")
        if len(self.size) != 2 or not all(isinstance(side, int) and side > 0 for side in self.size):
            raise ValueError(f"preprocessing: size is {list(self.size)}, two sides in pixels are needed")
        if not (0 < self.crop <= 1 and self.scale > 0 and self.bits in range(8, 17)):
            raise ValueError("preprocessing: crop, scale or bits is out of range")
        if (self.mean is None) != (self.std is None):
            raise ValueError("preprocessing: mean and std are needed, or neither")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) != self.channels or not np.isfinite(values).all()):
                raise ValueError(f"preprocessing: {key} is {list(values)}, {self.channels} numbers are needed")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"preprocessing: std is {list(self.std)}, more than 0 is needed")

    @property
    def channels(self) -> int:
        """Of a picture."""
        return COLOURS[self.colours]

    def described(self) -> dict[str, Any]:
        """As values that JSON carries."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def normalised_by(self, mean: Sequence[float], std: Sequence[float], scale: float, colours: str) -> Preprocessing:
        """The same for a network whose own module normalises, by these."""
        return replace(self, mean=tuple(mean), std=tuple(std), scale=scale, colours=colours)

    def read(self, file: Path) -> np.ndarray:
        """A picture file, sized: uint8 ``[height, width, channels]``.

        Raises:
            ValueError: it cannot be read as a picture; names the file.
        """
        if self.resize == "centre":
            with opened(file) as picture:
                window = central_window(*upright_size(picture), self.crop)
                return self._in_order(cut(picture, window, self.size, self.bits))
        with opened(file) as picture:
            return self.sized(as_rgb(picture, self.bits))

    def sized(self, picture: Image) -> np.ndarray:
        """A picture in mode ``RGB``, sized: uint8 ``[height, width, channels]``."""
        from PIL.Image import Resampling

        if self.resize == "fit":
            return self._fitted(picture)
        how = Resampling.BOX if self.resample == "box" else Resampling.BILINEAR
        across = self.size[::-1]
        if self.resize == "squeeze":
            return self._in_order(picture.resize(across, how))
        return self._in_order(picture.resize(across, how, box=central_window(*picture.size, self.crop)))

    def normalised(self, pixels: np.ndarray) -> Tensor:
        """What a network takes: float32 ``[n, channels, height, width]`` of uint8 ``[n, height, width, channels]``."""
        values = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float().div_(self.scale)
        if self.mean is None or self.std is None:
            return values
        mean, std = (torch.tensor(each, dtype=torch.float32).view(-1, 1, 1) for each in (self.mean, self.std))
        return values.sub_(mean).div_(std)

    def pictured(self, image: Tensor) -> np.ndarray:
        """The pixels that a normalised image ``[channels, height, width]`` was made of, as RGB or grey."""
        values = image.detach().float().cpu()
        if self.mean is not None and self.std is not None:
            mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.mean, self.std))
            values = values * std + mean
        pixels = values.mul(self.scale).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        return pixels[..., ::-1] if self.colours == "BGR" else pixels

    def _in_order(self, picture: Image) -> np.ndarray:
        if self.colours == "L":
            return np.asarray(picture.convert("L"))[..., None]
        pixels = np.asarray(picture)
        return pixels[..., ::-1] if self.colours == "BGR" else pixels

    def _fitted(self, picture: Image) -> np.ndarray:
        import mmcv

        how = "area" if self.resample == "box" else "bilinear"
        return mmcv.imrescale(self._in_order(picture), tuple(self.size), interpolation=how)


def read_preprocessing(described: Mapping[str, Any]) -> Preprocessing:
    """What `Preprocessing.described` has described.

    Raises:
        ValueError: it is damaged.
    """
    try:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in described.items()
        }
        return Preprocessing(**values)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"preprocessing is damaged ({error})") from error


def central_window(width: int, height: int, share: float) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge of a central square, whose side is a share of the shorter side."""
    side = min(width, height) * share
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def cut(picture: Image, window: tuple[float, float, float, float], size: tuple[int, int], bits: int) -> Image:
    """A window of an opened picture, at another size, in mode ``RGB``.

    Args:
        picture: of which only the header was read.
        window: left, upper, right and lower edge on the upright picture.
        size: height and width in pixels.
        bits: as for `datamodules.pictures.as_rgb`.
    """
    from PIL.Image import Resampling

    width, height = upright_size(picture)
    # A JPEG is decoded at the smallest of its sizes in which the window still has enough pixels.
    shrink = int(min(window[2] - window[0], window[3] - window[1]) / max(size))
    if shrink > 1:
        picture.draft("RGB", (picture.width // shrink, picture.height // shrink))
    rgb = as_rgb(picture, bits)
    across, down = rgb.width / width, rgb.height / height
    box = (window[0] * across, window[1] * down, window[2] * across, window[3] * down)
    return rgb.resize(size[::-1], Resampling.BILINEAR, box=box)


def class_names(data: Any) -> list[str] | None:
    """The name of each class of a data module, in the order of the labels; None where it has none to tell."""
    arrays: Any = getattr(data, "arrays", None)
    places = (
        getattr(data, "class_names", None),
        getattr(data, "classes", None),
        (getattr(data, "metainfo", None) or {}).get("classes"),
        getattr(arrays, "classes", None),
    )
    for names in places:
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return list(names)
    return None
