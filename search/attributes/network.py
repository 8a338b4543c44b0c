"""Attributes that are read off an architecture's network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from search.attributes.base import Attribute
from search.evaluation import Architecture
from search.randomness import derive_seed
from search.spaces.base import SearchSpace
from search.training.isolation import isolated, seed_global_streams

if TYPE_CHECKING:  # jsonargparse resolves this name too, and only when a recipe names an attribute that takes it
    from pytorch_lightning import LightningDataModule


class NetworkAttribute(Attribute):
    """A number that is read off the untrained network.

    Args:
        space: builds the networks.
        build: arguments of `SearchSpace.build_from`.
        seed: of the weights, together with the architecture.
        device: where the network is; on ``meta`` it has shapes and no weights.
        data: gives `batch`; None where none is needed.

    Raises:
        ValueError: it shows networks images, and those of the space read text.
    """

    shows_images: bool = True
    """Whether it looks at what a network makes of images."""

    def __init__(
        self,
        space: SearchSpace,
        build: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "meta",
        data: LightningDataModule | None = None,
    ):
        if self.shows_images and space.reads_text:
            raise ValueError(f"{type(self).__name__} shows images, networks of '{space.name}' read text")
        super().__init__(space)
        self.build, self.seed, self.device, self.data = build or {}, seed, device, data
        self._batches: list[Any] = []

    def adopt(self, build: dict[str, Any] | None = None, **others: Any) -> None:
        """Take what is meant for all attributes of a recipe, where it has none of its own: here how to build."""
        self.build = self.build or build or {}

    @abstractmethod
    def read(self, network: nn.Module) -> float:
        """The value of a network, which may be changed; torch's random state is that of this network alone."""

    def measure(self, architectures: Sequence[Architecture]) -> Iterator[float]:
        """Build one network after another, and leave the process as it was."""
        for architecture in architectures:
            with self.built(architecture) as network:
                yield self.read(network)

    @contextmanager
    def built(self, architecture: Architecture) -> Iterator[nn.Module]:
        """The network of an architecture, in whose random state, and nobody else's, the body runs."""
        if self.data is not None:
            self.batch()  # before the seed is set: how it is made must not matter
        with isolated():
            seed_global_streams(derive_seed(self.seed, *architecture))
            with torch.device("meta" if self.device == "meta" else "cpu"):  # weights are the same for every device
                network = self.space.build_from(architecture, self.build)
            yield network.to(self.device)

    def batch(self, number: int = 0) -> Any:
        """A training batch, the same for every architecture, on the device.

        Args:
            number: which of the first epoch's, from 0.

        Raises:
            ValueError: there are no data, or not so many batches of them.
        """
        if self.data is None:
            raise ValueError(f"{type(self).__name__} needs a batch: name 'data'")
        if number >= len(self._batches):
            from pytorch_lightning.utilities import move_data_to_device

            with isolated():
                seed_global_streams(derive_seed(self.seed, "data"))
                reseed = getattr(self.data, "reseed", None)
                if callable(reseed):
                    reseed(derive_seed(self.seed, "data"))
                self.data.prepare_data()
                self.data.setup("fit")
                first = [batch for batch, _ in zip(self.data.train_dataloader(), range(number + 1), strict=False)]
            if number >= len(first):
                raise ValueError(f"{number + 1} batches are needed, an epoch of 'data' has {len(first)}")
            self._batches = [move_data_to_device(each, torch.device(self.device)) for each in first]
        return self._batches[number]
