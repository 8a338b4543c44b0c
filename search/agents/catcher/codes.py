"""What networks and processes read of an architecture: its decisions, and its attributes where it has any."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from search.attributes.base import Attribute
from search.attributes.quantiles import QuantileColumns
from search.randomness import TrialRandom
from search.spaces.base import SearchSpace

_REFERENCE = 256
"""Random architectures among which attributes are ranked (assumed: enough for quantiles)."""


class Codes:
    """One-hot decisions, then a column an attribute.

    Args:
        space: of the architectures.
        attributes: by name; each is the normal quantile of its value among random architectures.
        read: whether they are columns; else they only say what is promising.

    Attributes:
        names: of the columns after the decisions.
        blocks: int64 ``[length]``: 0 of decisions, 1 of attributes.
        groups: int64 ``[length]``: which decision or attribute each column is of, attributes numbered last.
        scale: float32 ``[length]``: factors that make the mean squared distance between random architectures 1 over the
            number of groups, in every group.
    """

    def __init__(self, space: SearchSpace, attributes: Mapping[str, Attribute] | None = None, read: bool = True):
        self.space, self.names = space, list(attributes or ()) if read else []
        self._quantiles: QuantileColumns | None = None
        if attributes:
            self._quantiles = QuantileColumns(space, attributes, space.sample(TrialRandom(0), _REFERENCE)[0])
        count = len(self.names)
        sizes = torch.tensor([*space.sizes, *[1] * count])
        self.groups = torch.arange(len(sizes)).repeat_interleave(sizes)
        self.blocks = (self.groups >= len(space.sizes)).long()
        # The one-hot code of k choices has variance 1 - 1/k, a normal quantile 1; two differ by twice of that.
        variances = [max(1e-9, 1 - 1 / size) for size in space.sizes] + [1.0] * count
        self.scale = torch.tensor([math.sqrt(0.5 / each / len(sizes)) for each in variances])[self.groups]

    def __len__(self) -> int:
        """How many columns."""
        return len(self.groups)

    def __call__(self, archs: Tensor) -> Tensor:
        """Of architectures, int64 ``[..., decisions]``: float32 ``[..., length]``."""
        codes = self.space.one_hot(archs)
        return torch.cat([codes, self._quantiles(archs)], -1) if self.names and self._quantiles else codes

    def features(self, archs: Tensor) -> Tensor:
        """The same scaled."""
        return self(archs) * self.scale

    def promise(self, archs: Tensor) -> Tensor:
        """What the attributes say of architectures ``[..., decisions]``: their mean quantile, float32 ``[...]``."""
        return torch.zeros(archs.shape[:-1]) if self._quantiles is None else self._quantiles(archs).mean(-1)
