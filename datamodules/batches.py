"""Batches of images out of memory, without Lightning.

A batch is one indexing operation on a uint8 array: order, crop and flip are folded into its indices. They are a pure
function of (seed, epoch, image), whatever the number of workers, ranks or batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.augmentation import Augmenter


def generator_of(*parts: int) -> torch.Generator:
    """A generator of its own for each tuple of non-negative numbers.

    Its seed is a hash of them, for torch's generator keeps only 32 bits of a seed.
    """
    return torch.Generator().manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))


class EpochShuffle(DistributedSampler):
    """A random order that depends on (seed, epoch) alone.

    Where several ranks train together, rank ``r`` of ``n`` takes every ``n``-th of it from the ``r``-th on, so that
    their batches of ``b`` are together the batches of ``n b`` of one process. The first few are repeated where they do
    not divide evenly. Lightning leaves a sampler of this kind alone; any other it replaces by an order of its own.

    Lightning announces the epoch through `set_epoch`; a plain loop calls it itself.
    """

    def __init__(self, source: Sized, seed: int):
        together = dist.is_available() and dist.is_initialized()
        ranks, rank = (dist.get_world_size(), dist.get_rank()) if together else (1, 0)
        super().__init__(cast(Dataset, source), ranks, rank, seed=seed)

    def __iter__(self) -> Iterator[int]:
        count = len(cast(Sized, self.dataset))
        order = torch.randperm(count, generator=generator_of(self.seed, self.epoch, 0))
        return iter(
            order.repeat(-(-self.total_size // max(count, 1)))[self.rank : self.total_size : self.num_replicas].tolist()
        )


class ImageBatches(Dataset):
    """Batches of normalised images out of uint8 memory.

    Args:
        images: uint8 ``[n, height, width, channels]``.
        labels: int64 ``[n]``.
        mean: of each channel, on the scale of 0 to 1.
        std: of each channel, on the same scale.
        padding: pixels of black around an image, from which a random crop of its own size is taken; 0 for none.
        flip: whether to mirror an image left to right with probability 1/2.
        seed: of crops and flips.
        augmenter: what is done to them besides; None for nothing.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
        padding: int = 0,
        flip: bool = False,
        seed: int = 0,
        augmenter: Augmenter | None = None,
    ):
        self.height, self.width = images.shape[1:3]
        if padding:
            images = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        # (x / 255 - mean) / std as one multiplication and one addition
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale, self.shift = scale.float().view(-1, 1, 1), shift.float().view(-1, 1, 1)
        self.padding, self.flip, self.seed, self.augmenter = padding, flip, seed, augmenter
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the crops and flips of an epoch, for every image at once."""
        if self.augmenter is not None:
            self.augmenter.epoch = epoch
        if not (self.padding or self.flip):
            return
        generator = generator_of(self.seed, epoch, 1)
        n = len(self.images)
        corner = torch.randint(2 * self.padding + 1, (2, n, 1), generator=generator)
        flipped = torch.rand(n, 1, generator=generator) < 0.5 if self.flip else torch.zeros(n, 1, dtype=torch.bool)
        columns = torch.arange(self.width)
        # int16 keeps the index of a large data set small
        self._rows = (corner[0] + torch.arange(self.height)).to(torch.int16)
        self._columns = (corner[1] + torch.where(flipped, columns.flip(0), columns)).to(torch.int16)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch: images float32 ``[batch, channels, height, width]``; labels int64 ``[batch]``, or soft."""
        index = torch.tensor(indices)
        if self.padding or self.flip:
            rows, columns = self._rows[index].long(), self._columns[index].long()
            batch = self.images[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        else:
            batch = self.images[index]
        batch = batch.permute(0, 3, 1, 2)
        if self.augmenter is not None and self.augmenter.settings.randaugment:
            batch = torch.stack([self.augmenter.pixels(*each) for each in zip(batch, indices, strict=True)])
        pixels = batch.to(torch.float32, memory_format=torch.contiguous_format)
        images, labels = pixels.mul_(self.scale).add_(self.shift), self.labels[index]
        return (images, labels) if self.augmenter is None else self.augmenter.batch(images, labels, indices)


class EpochLoader(DataLoader):
    """A DataLoader that tells its data set which epoch begins, before workers copy it."""

    def __iter__(self) -> Any:
        # Not before the first batch: a training that goes on from a checkpoint makes its first iterator, and only then
        # hears of its epoch.
        self.dataset.set_epoch(self.sampler.epoch)  # type: ignore[attr-defined]
        yield from super().__iter__()


def whole(batch: Any) -> Any:
    """Collate nothing: the data set makes whole batches."""
    return batch
