"""Attributes as columns for whatever learns: the normal quantile of each value among those of a fixed sample.

Attributes have scales that have nothing in common, from shares to billions of operations; ranks do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from search.attributes.base import Attribute
from search.statistics.places import places


class QuantileColumns:
    """A column an attribute, larger where `Attribute.direction` says that networks are better.

    Args:
        attributes: by name, in the order of the columns.
        reference: int64 ``[n, decisions]``, the sample; its networks are measured now.
    """

    def __init__(self, attributes: Mapping[str, Attribute], reference: Tensor):
        self._attributes = dict(attributes)
        self._known = {}
        for name, attribute in self._attributes.items():
            values = attribute.values(reference)
            self._known[name] = values[~values.isnan()]

    def __len__(self) -> int:
        """How many columns."""
        return len(self._attributes)

    def __call__(self, archs: Tensor) -> Tensor:
        """Of architectures, int64 ``[..., decisions]``: float32 ``[..., columns]``, 0, the middle, for no value."""
        columns = [torch.zeros(*archs.shape[:-1], 0)]
        for name, attribute in self._attributes.items():
            known, values = self._known[name], attribute.values(archs)
            below = places(values.reshape(1, -1), known[None])[0].reshape(values.shape)
            quantile = torch.special.ndtri((below + 0.5) / (len(known) + 1))
            sign = 1.0 if attribute.direction == "max" else -1.0
            columns.append(torch.where(values.isnan(), 0.0, sign * quantile).float().unsqueeze(-1))
        return torch.cat(columns, -1)
