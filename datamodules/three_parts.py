"""One training set in three parts, as weight sharing needs it: for the weights, held out from them, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import CombinedLoader

from datamodules.batches import generator_of
from datamodules.protocols import WholeTrainingSet


class BatchSource(Protocol):
    """A data set that makes whole batches, a function of (epoch, image)."""

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentation of an epoch."""
        ...

    def __getitems__(self, indices: list[int]) -> Any:
        """A batch of these images and what is known of them."""
        ...


class JointBatches:
    """Shuffled batches of some images of a data set, of which each rank gets its share.

    Which images a joint batch holds is a function of (seed, stream, epoch) alone; of ``n`` ranks, rank ``r`` takes
    every ``n``-th image from the ``r``-th on. An incomplete last batch is left out. Where more batches are wanted than
    there are, the images come again, each time in another order.

    Args:
        source: makes the batches.
        indices: the images to take.
        batch_size: of the joint batch, over all ranks.
        seed: of the order.
        stream: tells the orders of several parts of a data set apart.
        batches: in a pass; None for as many as the images give.
    """

    def __init__(
        self,
        source: BatchSource,
        indices: Sequence[int],
        batch_size: int,
        seed: int,
        stream: int,
        batches: int | None = None,
    ):
        if len(indices) < batch_size:
            raise ValueError(f"batch_size is {batch_size}, but this part of the data has {len(indices)} images")
        self.source, self.indices = source, torch.as_tensor(indices)
        self.batch_size, self.seed, self.stream, self.epoch = batch_size, seed, stream, 0
        self.batches = len(indices) // batch_size if batches is None else batches
        # Lightning announces epochs to a loader's sampler.
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, and the augmentation."""
        self.epoch = epoch
        self.source.set_epoch(epoch)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if self.batch_size % ranks:
            raise ValueError(f"batch_size is {self.batch_size}, it must be a multiple of the {ranks} ranks")
        once = len(self.indices) // self.batch_size
        for batch in range(len(self)):
            again, place = divmod(batch, once)
            if place == 0:
                generator = generator_of(self.seed, self.epoch, 16 + self.stream, *((again,) if again else ()))
                order = self.indices[torch.randperm(len(self.indices), generator=generator)]
            joint = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield self.source.__getitems__(joint[rank::ranks].tolist())


class ThreePartsDataModule(LightningDataModule):
    """The training set of a data module in parts.

    The paper and DARTS hold one half out from the weights, on which landmarks, logits and rankings are then computed
    alike. Here the images that architectures are evaluated on are kept apart from that half, so that nothing that
    ranks architectures was trained on them. The official validation or test images are not touched.

    A training batch is ``{"train": batch, "held_out": batch}``.

    Args:
        data: over the whole training set, with ``batch_size`` and ``training_set(augmented)``, as `ArrayDataModule` and
            `DepthFolderDataModule` have them.
        held_out_share: of the training set that the weights do not learn from (Landmark Regularization: 0.5).
        evaluation_images: of those, kept apart to evaluate architectures on; a number below 1 is their share.
        images: use so many images of the training set only; a number below 1 is their share, None stands for all.
        mode: which of the two streams an epoch takes whole, as Lightning's ``CombinedLoader`` calls it: ``min_size``
            the shorter one, and leaves the rest of the other out; ``max_size_cycle`` the longer one, and the other
            again and again. With fewer images held out, an epoch is then one of the weights' images.
        seed: of the split, which is otherwise the same for every run.
    """

    def __init__(
        self,
        data: LightningDataModule,
        held_out_share: float = 0.5,
        evaluation_images: int | float = 5000,
        images: int | float | None = None,
        seed: int = 0,
        mode: Literal["min_size", "max_size_cycle"] = "min_size",
    ):
        super().__init__()
        if not isinstance(data, WholeTrainingSet):
            raise ValueError(
                f"data is a {type(data).__name__}, which has no training_set(augmented), batch_size or reseed(seed)"
            )
        if mode not in ("min_size", "max_size_cycle"):
            raise ValueError(f"mode is '{mode}', allowed: min_size, max_size_cycle")
        self.data: Any = data
        self.mode = mode
        if not 0 < held_out_share < 1:
            raise ValueError(f"held_out_share is {held_out_share}, it must lie between 0 and 1")
        self.seed = seed
        self._train = self.data.training_set()
        self._plain = self.data.training_set(augmented=False)
        count = len(self._train) if images is None else _number(images, len(self._train))
        if not 0 < count <= len(self._train):
            raise ValueError(f"images is {images}, the training set has {len(self._train)}")
        order = torch.randperm(len(self._train), generator=generator_of(seed, 3, 1))[:count]
        held_out = round(count * held_out_share)
        evaluation = _number(evaluation_images, held_out)
        if not 2 <= evaluation < held_out:  # a network cannot normalise over a batch of one
            raise ValueError(
                f"evaluation_images is {evaluation_images}, of {held_out} that are held out; at least 2 and not all of "
                "them are allowed"
            )
        self.evaluation, self.held_out, self.weights = order.split(
            [evaluation, held_out - evaluation, count - held_out]
        )
        self.reseed(seed)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"evaluation_images": 8, "images": 48}

    def reseed(self, seed: int) -> None:
        """Set the seed of order and augmentation, not of the split."""
        self.order_seed = seed
        self.data.reseed(seed)
        self._train = self.data.training_set()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.data.num_classes

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.data.in_channels

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one image: (channels, height, width)."""
        batch = self._plain.__getitems__([0])
        return tuple((batch["inputs"] if isinstance(batch, dict) else batch[0])[0].shape)

    def train_dataloader(self) -> CombinedLoader:
        """Two streams of augmented batches."""
        parts, size = {"train": self.weights, "held_out": self.held_out}, self.data.batch_size
        longest = max(len(part) // size for part in parts.values())
        streams = {
            name: JointBatches(
                self._train, part, size, self.order_seed, stream, longest if self.mode == "max_size_cycle" else None
            )
            for stream, (name, part) in enumerate(parts.items())
        }
        return CombinedLoader(streams, "min_size")

    def evaluation_batches(self, batch_size: int = 256) -> list[Any]:
        """The images that architectures are evaluated on, as they are, in a fixed order."""
        # As equal as can be: the statistics of a small rest would normalise it badly.
        parts = self.evaluation.tensor_split(-(-len(self.evaluation) // batch_size))
        return [self._plain.__getitems__(part.tolist()) for part in parts]

    def calibration_batches(self, count: int, batch_size: int = 256) -> list[Any]:
        """Some of the weights' images, as they are, to recalibrate normalisation on."""
        some = self.weights[: count * batch_size]
        if len(some) > 1 and len(some) % batch_size == 1:
            some = some[:-1]  # a network cannot normalise over a batch of one
        return [self._plain.__getitems__(part.tolist()) for part in some.split(batch_size)] if count else []


def _number(wanted: int | float, total: int) -> int:
    """How many that is, if a number below 1 is a share of the total."""
    return round(wanted * total) if 0 < wanted < 1 else int(wanted)
