"""Attributes as columns for whatever learns: the normal quantile of each value among those of a fixed sample.

Attributes have scales that have nothing in common, from shares to billions of operations; ranks do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from search.attributes.base import Attribute
from search.spaces.base import SearchSpace
from search.statistics.places import places


class QuantileColumns:
    """A column an attribute, larger where `Attribute.direction` says that networks are better.

    Args:
        space: of the architectures.
        attributes: by name, in the order of the columns.
        reference: int64 ``[n, decisions]``, the sample; its networks are measured now.
    """

    def __init__(self, space: SearchSpace, attributes: Mapping[str, Attribute], reference: Tensor):
        self._space, self._attributes = space, dict(attributes)
        self._known = {}
        for name, attribute in self._attributes.items():
            values = attribute.values(reference)
            self._known[name] = values[~values.isnan()]
        # What was asked before, in the order of codes: networks are asked about again and again.
        self._codes = torch.zeros(0, dtype=torch.long)
        self._columns = torch.zeros(0, len(self._attributes))

    def __len__(self) -> int:
        """How many columns."""
        return len(self._attributes)

    def __call__(self, archs: Tensor) -> Tensor:
        """Of architectures, int64 ``[..., decisions]``: float32 ``[..., columns]``, 0, the middle, for no value."""
        if not self._attributes:
            return torch.zeros(*archs.shape[:-1], 0)
        flat = archs.reshape(-1, archs.shape[-1])
        codes = self._space.code(flat)
        if not (seen := torch.isin(codes, self._codes)).all():
            self._learn(flat[~seen].unique(dim=0))
        return self._columns[torch.searchsorted(self._codes, codes)].reshape(*archs.shape[:-1], len(self))

    def _learn(self, archs: Tensor) -> None:
        """Work out the columns of different architectures ``[n, decisions]`` and keep them."""
        columns = torch.stack([self._quantiles(name, archs) for name in self._attributes], -1)
        self._codes, order = torch.cat([self._codes, self._space.code(archs)]).sort()
        self._columns = torch.cat([self._columns, columns])[order]

    def _quantiles(self, name: str, archs: Tensor) -> Tensor:
        """Of one attribute: float32 ``[n]``."""
        attribute, known = self._attributes[name], self._known[name]
        values = attribute.values(archs)
        quantile = torch.special.ndtri((places(values[None], known[None])[0] + 0.5) / (len(known) + 1))
        sign = 1.0 if attribute.direction == "max" else -1.0
        return torch.where(values.isnan(), 0.0, sign * quantile).float()
