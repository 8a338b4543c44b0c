"""Attributes that are read off an architecture's network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
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
    """

    def __init__(
        self,
        space: SearchSpace,
        build: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "meta",
        data: LightningDataModule | None = None,
    ):
        super().__init__(space)
        self.build, self.seed, self.device, self.data = build or {}, seed, device, data
        self._batch: Any = None

    @abstractmethod
    def read(self, network: nn.Module) -> float:
        """The value of a network, which may be changed; torch's random state is that of this network alone."""

    def measure(self, architectures: Sequence[Architecture]) -> Iterator[float]:
        """Build one network after another, and leave the process as it was."""
        for architecture in architectures:
            if self.data is not None:
                self.batch()  # before the seed is set: how it is made must not matter
            with isolated():
                seed_global_streams(derive_seed(self.seed, *architecture))
                with torch.device("meta" if self.device == "meta" else "cpu"):  # weights are the same for every device
                    network = self.space.build_from(architecture, self.build)
                yield self.read(network.to(self.device))

    def batch(self) -> Any:
        """The first training batch, the same for every architecture, on the device.

        Raises:
            ValueError: there are no data.
        """
        if self.data is None:
            raise ValueError(f"{type(self).__name__} needs a batch: name 'data'")
        if self._batch is None:
            from pytorch_lightning.utilities import move_data_to_device

            with isolated():
                seed_global_streams(derive_seed(self.seed, "data"))
                reseed = getattr(self.data, "reseed", None)
                if callable(reseed):
                    reseed(derive_seed(self.seed, "data"))
                self.data.prepare_data()
                self.data.setup("fit")
                self._batch = move_data_to_device(next(iter(self.data.train_dataloader())), torch.device(self.device))
        return self._batch
