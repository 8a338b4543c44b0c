"""Sequences of consecutive frames out of a video, for networks that predict the next one.

The end of each video is held out. Everything about a batch is a pure function of (seed, epoch, sequence).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import generator_of
from datamodules.epochs import EpochDataModule
from datamodules.moving_squares import MOVING_SQUARES, moving_squares
from datamodules.videos import find_frames, read_videos, sized


class FrameSequences(Dataset):
    """Batches of sequences out of uint8 memory.

    Args:
        frames: uint8 ``[n, height, width, channels]``, several videos one after the other.
        starts: the first frame of each sequence.
        length: frames of a sequence.
        limit: sequences of an epoch, drawn anew for each; None for all.
        crop: height and width of the part of the frames that is taken; None for all of them.
        random: whether each sequence takes another part in each epoch, or else the middle.
        seed: of these draws.
    """

    def __init__(
        self,
        frames: np.ndarray,
        starts: Sequence[int],
        length: int,
        limit: int | None = None,
        crop: tuple[int, int] | None = None,
        random: bool = False,
        seed: int = 0,
    ):
        self.frames, self.length, self.limit, self.seed = torch.from_numpy(frames), length, limit, seed
        self.starts = torch.tensor(list(starts), dtype=torch.long)
        self.crop, self.random = crop or frames.shape[1:3], random
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the sequences of an epoch, and what is taken of each; of fewer than are wanted some come again."""
        self._chosen = self.starts
        if self.limit is not None:
            generator = generator_of(self.seed, epoch, 1)
            rounds = [self.starts[torch.randperm(len(self.starts), generator=generator)] for _ in range(self._rounds)]
            self._chosen = torch.cat(rounds)[: self.limit]
        spare = torch.tensor(self.frames.shape[1:3]) - torch.tensor(self.crop)
        self._corners = (spare // 2).expand(len(self._chosen), 2)
        if self.random:
            share = torch.rand(len(self._chosen), 2, generator=generator_of(self.seed, epoch, 2), dtype=torch.float64)
            self._corners = (share * (spare + 1)).long()

    @property
    def _rounds(self) -> int:
        return -(-(self.limit or 1) // len(self.starts))

    def __len__(self) -> int:
        return len(self.starts) if self.limit is None else self.limit

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> Tensor:
        """A whole batch: float32 ``[batch, time, channels, height, width]`` in 0 to 1."""
        height, width = self.crop
        parts = []
        for index in indices:
            first, (top, left) = int(self._chosen[index]), self._corners[index].tolist()
            parts.append(self.frames[first : first + self.length, top : top + height, left : left + width])
        batch = torch.stack(parts).permute(0, 1, 4, 2, 3)
        return batch.to(torch.float32, memory_format=torch.contiguous_format) / 255


class FramesDataModule(EpochDataModule):
    """Next-frame prediction on videos: sequences of consecutive frames, the end of each video held out.

    Args:
        frames: an ``.npz`` file with an array ``frames``, or an ``.npy`` file, uint8 ``[n, height, width, 3]``; or a
            folder of pictures, one video in the order of their names; or a folder of such folders, a video each, as
            KITTI's drives are. A relative path is looked for below the current folder, then below ``$CATCHMARK_DATA``.
            ``moving_squares`` stands for a drawn video that is always there.
        length: frames of a sequence; 10 in PredNet.
        batch_size: sequences a step.
        height: to resize frames to, in pixels; None to take them as they are. What the proportions of height and width
            leave over is cut off at both sides.
        width: likewise.
        crop: height and width of the part of the frames that is taken, in pixels: of a training sequence another part
            in each epoch, of a validation sequence the middle. None for all of them.
        held_out: the last so many frames of each video are for validation; a number below 1 is their share.
        train_step: from the start of one training sequence to that of the next, in frames.
        val_step: of the validation, likewise; None for ``length``, so that no frame comes twice.
        train_sequences: of an epoch, drawn anew for each; None for all.
        val_sequences: only the first so many; None for all.
        num_workers: processes that make batches.
        seed: of the order.

    Raises:
        ValueError: a number is out of range.
    """

    num_classes = 0
    in_channels = 3

    def __init__(
        self,
        frames: str | PathLike[str],
        length: int = 10,
        batch_size: int = 4,
        height: int | None = None,
        width: int | None = None,
        crop: list[int] | None = None,
        held_out: int | float = 0.2,
        train_step: int = 1,
        val_step: int | None = None,
        train_sequences: int | None = None,
        val_sequences: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, num_workers, seed)
        numbers = {
            "length": length - 1,
            "train_step": train_step,
            "val_step": val_step,
            "height": height,
            "width": width,
        }
        numbers |= {"train_sequences": train_sequences, "val_sequences": val_sequences}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is out of range, at least {2 if name == 'length' else 1} is needed")
        if (height is None) != (width is None):
            raise ValueError("height and width: give both or neither")
        if crop is not None and (len(crop) != 2 or min(crop) < 1):
            raise ValueError(f"crop is {crop}, height and width in pixels are needed")
        if not held_out > 0:
            raise ValueError(f"held_out is {held_out}, frames of a video or their share are needed")
        self.frames, self.length, self.height, self.width, self.held_out = Path(frames), length, height, width, held_out
        self.crop = None if crop is None else (crop[0], crop[1])
        self.train_step, self.val_step = train_step, val_step or length
        self.train_sequences, self.val_sequences = train_sequences, val_sequences
        self._found = None if str(frames) == MOVING_SQUARES else find_frames(frames)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"length": 3, "height": 16, "width": 20, "crop": [8, 10], "train_sequences": 8, "val_sequences": 4}

    def with_settings(
        self, batch_size: int, train_sequences: int | None = None, val_sequences: int | None = None
    ) -> FramesDataModule:
        """The same videos in other batches and numbers of sequences; what was read is not read again."""
        _ = self._loaded
        changed = copy.copy(self)
        changed.batch_size, changed.train_sequences, changed.val_sequences = batch_size, train_sequences, val_sequences
        return changed

    @property
    def videos(self) -> list[np.ndarray]:
        """Uint8 ``[n, height, width, 3]`` each, read and resized on first use.

        Raises:
            ValueError: a video is none, or too short to be held out of.
        """
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """All frames one after the other, and each video, which is a part of that."""
        size = None if self.height is None or self.width is None else (self.height, self.width)
        videos = [sized(moving_squares(), size)] if self._found is None else read_videos(self._found, size)
        if self.crop is not None and any(
            side > whole for side, whole in zip(self.crop, videos[0].shape[1:3], strict=True)
        ):
            raise ValueError(f"crop is {list(self.crop)}, frames have {list(videos[0].shape[1:3])} pixels")
        for video in videos:
            first = self._first_held_out(len(video))
            if first < self.length or len(video) - first < self.length:
                raise ValueError(
                    f"{self._found or MOVING_SQUARES}: of a video of {len(video)} frames {len(video) - first} are held "
                    f"out; a sequence of {self.length} frames must fit into them, and into the others"
                )
        if len(videos) == 1:
            return videos[0], videos
        joined = np.concatenate(videos)
        return joined, np.split(joined, np.cumsum([len(video) for video in videos])[:-1])

    def leaves_out_rest(self, images: int) -> bool:
        """Nothing: networks that predict frames take no statistics over a batch."""
        return False

    def training_set(self, augmented: bool = True) -> FrameSequences:
        """All sequences before what is held out; ``augmented`` as many of them an epoch as are wanted."""
        starts = self._starts(lambda frames: (0, self._first_held_out(frames)), self.train_step)
        limit = self.train_sequences if augmented else None
        return FrameSequences(self._loaded[0], starts, self.length, limit, self.crop, augmented, self.seed)

    def validation_set(self) -> FrameSequences:
        """The sequences of what is held out."""
        starts = self._starts(lambda frames: (self._first_held_out(frames), frames), self.val_step)
        return FrameSequences(self._loaded[0], starts[: self.val_sequences], self.length, crop=self.crop)

    def _first_held_out(self, frames: int) -> int:
        return frames - (round(self.held_out * frames) if self.held_out < 1 else int(self.held_out))

    def _starts(self, part: Any, step: int) -> list[int]:
        """Where the sequences of a part of each video begin, counted in all videos together."""
        starts: list[int] = []
        before = 0
        for video in self.videos:
            first, end = part(len(video))
            starts += range(before + first, before + end - self.length + 1, step)
            before += len(video)
        return starts
