"""Videos as arrays of frames, out of NumPy files or folders of pictures."""

from __future__ import annotations

import zipfile
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from datamodules.locations import locations, looked_in
from datamodules.pictures import SUFFIXES, read_rgb
from lightning_modules.spelling import nearest

_CURE = (
    "name an .npz or .npy file of frames (uint8 [n, height, width, 3]), a folder of pictures in the order of their "
    "names, or a folder of such folders"
)
_CHUNK = 256  # frames at a time, so that the float32 copy of a long video never exists as a whole


def find_frames(path: str | PathLike[str]) -> Path:
    """Where a file or folder of frames lies: below the current folder, else below ``$CATCHMARK_DATA``.

    Raises:
        FileNotFoundError: it is in neither.
    """
    for candidate in locations(path):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"no frames '{Path(path).expanduser()}'{looked_in(path)}; {_CURE}")


def read_videos(path: Path, size: tuple[int, int] | None) -> list[np.ndarray]:
    """The videos of a file or folder, uint8 ``[n, height, width, 3]`` each, resized if a size is given.

    Args:
        path: an ``.npz`` file with an array ``frames``, an ``.npy`` file, a folder of pictures, or one of such folders.
        size: height and width, in pixels.

    Raises:
        ValueError: it holds no frames, is damaged, or has frames of several sizes and is given none.
    """
    if path.is_file():
        return [sized(_read_array(path), size)]
    folders = [path, *sorted(each for each in path.iterdir() if each.is_dir())]
    pictures = [sorted(each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES) for folder in folders]
    # One picture after another: at its own size a drive of KITTI's would not fit into memory.
    videos = [[sized(np.array(read_rgb(file))[None], size) for file in files] for files in pictures if files]
    if not videos:
        raise ValueError(f"{path} has no pictures; {_CURE}")
    if len({frame.shape for video in videos for frame in video}) > 1:
        raise ValueError(f"{path}: frames have several sizes; give height and width")
    return [np.concatenate(video) for video in videos]


def _read_array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                names, loaded = loaded.files, loaded["frames"] if "frames" in loaded.files else None
            if loaded is None:
                raise KeyError(f"{path} has no array 'frames'{nearest('frames', names)}")
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no NumPy file, or damaged; {_CURE}") from error
    if loaded.dtype != np.uint8 or loaded.ndim != 4 or loaded.shape[3] != 3:
        raise ValueError(
            f"{path}: frames are {loaded.dtype} {list(loaded.shape)}, uint8 [n, height, width, 3] is needed"
        )
    return loaded


def sized(frames: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Frames resized to cover a size, less what sticks out of it at both sides; without a size as they are."""
    if size is None or size == frames.shape[1:3]:
        return frames
    height, width = size
    scale = max(height / frames.shape[1], width / frames.shape[2])
    whole = [max(least, round(scale * side)) for least, side in zip(size, frames.shape[1:3], strict=True)]
    top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
    resized = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    for start in range(0, len(frames), _CHUNK):
        chunk = torch.from_numpy(frames[start : start + _CHUNK]).permute(0, 3, 1, 2).float()
        chunk = functional.interpolate(chunk, size=whole, mode="bilinear", antialias=True)
        chunk = chunk[..., top : top + height, left : left + width].round().clamp(0, 255).to(torch.uint8)
        resized[start : start + len(chunk)] = chunk.permute(0, 2, 3, 1).numpy()
    return resized
