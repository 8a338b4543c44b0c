"""Pictures that something is drawn on, a label map or boxes: read so that both agree, whatever EXIF data say.

A photo may be stored lying on its side, with EXIF data that say how to turn it. Some tools draw on the pixels as they
are stored, others on the upright picture; the size of what was drawn tells which.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datamodules.openmmlab_data import Record
from datamodules.pictures import opened, upright_size

Size = tuple[int, int]
"""Width and height in pixels."""


def is_drawn_upright(picture_file: Path, size: Size, whose: str, slack: int = 0) -> bool | None:
    """Whether what has this size was drawn on the upright picture, of which only the header is read.

    Args:
        picture_file: the picture.
        size: of what was drawn on it.
        whose: names that in the message.
        slack: by how many pixels a side may differ.

    Returns:
        None where the picture has the same size both ways.

    Raises:
        ValueError: it has that size neither upright nor as it is stored; or it cannot be read.
    """
    with opened(picture_file) as picture:
        stored, upright = picture.size, upright_size(picture)
    if not (_fits(stored, size, slack) or _fits(upright, size, slack)):
        raise ValueError(
            f"{picture_file} has {stored[0]}x{stored[1]} pixels and {whose} {size[0]}x{size[1]}; they must be the same"
        )
    return None if stored == upright else _fits(upright, size, slack)


class LoadPicture:
    """mmcv's reader, that turns a picture where what is drawn on it was drawn upright.

    Args:
        drawn: the size of what is drawn on a record's picture, and whose it is.
        upright: whether pictures are read upright where they have that size both ways.
        slack: by how many pixels a side may differ.
    """

    def __init__(self, drawn: Callable[[Record], tuple[Size, str]], upright: bool, slack: int = 0):
        from mmcv.transforms import LoadImageFromFile

        self.drawn, self.upright, self.slack = drawn, upright, slack
        self._stored = LoadImageFromFile(color_type="color_ignore_orientation")
        self._turned, self._turned_by_pillow = LoadImageFromFile(), LoadImageFromFile(imdecode_backend="pillow")

    def __call__(self, record: Record) -> Record:
        """Read the picture of a record."""
        size, whose = self.drawn(record)
        # OpenCV turns no WebP files.
        turned = self._turned_by_pillow if record["img_path"].lower().endswith(".webp") else self._turned
        for read in (turned, self._stored) if self.upright else (self._stored, turned):
            loaded: Record = read(record)
            if _fits(loaded["img_shape"][::-1], size, self.slack):
                return loaded
        is_drawn_upright(Path(record["img_path"]), size, whose, self.slack)
        raise ValueError(f"{record['img_path']} cannot be turned as its EXIF data say; save it upright")


def _fits(size: Size, drawn: Size, slack: int) -> bool:
    return max(abs(a - b) for a, b in zip(size, drawn, strict=True)) <= slack
