"""Zero-cost proxies: attributes that are read off an untrained network by computing with it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from search.attributes.network import NetworkAttribute
from search.attributes.probe import Probe, images_and_labels
from search.evaluation import Architecture
from search.randomness import derive_seed
from search.spaces.base import SearchSpace
from search.spaces.head import head_of

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


class Proxy(NetworkAttribute):
    """What an untrained network says of the trained one.

    Proxies of one network share it, and the passes through it, wherever they are measured together
    (`search.attributes.together`). The number of classes and channels are those of the data, where ``build`` does not
    say them.

    Args:
        space: builds the networks.
        build: arguments of `SearchSpace.build_from`, such as the width; None for its defaults.
        seed: of the weights, together with the architecture, and of the data.
        device: where it is measured; None for the CPU.
        data: gives images with labels; their batch size is the proxy's. None for a proxy that needs no data, and in a
            study of rankings, which has data for all.
    """

    labels: bool = True
    """Whether it needs `data`."""
    merges: bool = True
    """Whether architectures that compute the same have the same value, that of `SearchSpace.representative`."""

    def __init__(
        self,
        space: SearchSpace,
        build: dict[str, Any] | None = None,
        seed: int = 0,
        device: str | None = None,
        data: LightningDataModule | None = None,
    ):
        super().__init__(space, build, seed, device or "cpu", data)
        if self.labels and not space.classifies:
            raise ValueError(f"{type(self).__name__} needs a loss of classes, networks of '{space.name}' give none")
        self._told = {key for key, value in {"device": device, "data": data}.items() if value is not None}

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A few small digits."""
        return {"data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 6}}}

    def canonical(self, archs: Tensor) -> Tensor:
        """The architectures that are measured for these."""
        return self.space.representative(archs) if self.merges else super().canonical(archs)

    def adopt(self, build: dict[str, Any] | None = None, **others: Any) -> None:
        """Take what is meant for all, each where it has none of its own: ``build``, ``data`` and ``device``."""
        super().adopt(build)
        for key, value in others.items():
            if value is not None and key not in self._told:
                setattr(self, key, value)

    @abstractmethod
    def score(self, probe: Probe) -> float:
        """The value of a network; infinity and NaN say that there is none. What the probe holds stays as it is."""

    def read(self, network: nn.Module) -> float:
        """The value of any network."""
        return self.score_of(Probe(network, self.seed, self.batch, self._image_shape()))

    def measure(self, architectures: Sequence[Architecture]) -> Iterator[float]:
        """One network after another."""
        for architecture in architectures:
            with self.probe(architecture) as probe:
                yield self.score_of(probe)

    def score_of(self, probe: Probe) -> float:
        """The value of a network, NaN where it is no finite number."""
        value = float(self.score(probe))
        return value if math.isfinite(value) else math.nan

    # ---- what is shared --------------------------------------------------------------------------------------------

    def kinship(self) -> Hashable:
        """The same for proxies that are measured on the same network and the same data."""
        return repr(sorted(self.build.items())), self.seed, self.device, id(self.data), self.merges

    @contextmanager
    def probe(self, architecture: Architecture) -> Iterator[Probe]:
        """The untrained network of an architecture, for this proxy and all of its kin."""
        if self.data is not None:
            self._match_data()
        with self.built(architecture) as network:
            yield Probe(network, derive_seed(self.seed, *architecture), self.batch, self._image_shape())

    def _match_data(self) -> None:
        """Build for the classes and channels of the data, where nobody says others."""
        for key in ("num_classes", "in_channels") if self.space.classifies else ("in_channels",):
            if key not in self.build and hasattr(self.data, key):
                self.build = {**self.build, key: getattr(self.data, key)}

    def _image_shape(self) -> tuple[int, ...]:
        if self.data is not None:
            return tuple(images_and_labels(self.batch())[0].shape[1:])
        return tuple(self.space.example_input(head_of(self.build)[0]).shape[1:])
