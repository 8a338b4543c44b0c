"""How architectures of a space grow layer by layer."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from search.spaces.base import SearchSpace
from search.spaces.layered import Layered


class Growth:
    """The layers of a space: those that it names (`Layered`), else a layer for each decision, all of which are there.

    Args:
        space: whose architectures grow.
        raw: whether `rows` are the numbers of the choices, or else one-hot.

    Raises:
        ValueError: layers have different numbers of decisions.
    """

    def __init__(self, space: SearchSpace, raw: bool = False):
        self._space, self._raw, self.grows = space, raw, isinstance(space, Layered)
        places = space.layer_decisions if isinstance(space, Layered) else [(t,) for t in range(len(space.decisions))]
        if len({len(each) for each in places}) != 1:
            raise ValueError(f"the layers of '{space.name}' have different numbers of decisions")
        self._depth = space.depth_decision if isinstance(space, Layered) else -1
        self._places = torch.tensor(list(places))
        ranges = [[range(space.sizes[t]) for t in each] for each in places]
        self._settings = [torch.tensor(list(itertools.product(*each))) for each in ranges]
        self.layers, decisions = self._places.shape
        # Where layers differ, their choices share columns: the network knows the layer by its place.
        self._widths = [max(space.sizes[layer[k]] for layer in places) for k in range(decisions)]
        self.columns = decisions if raw else sum(self._widths)
        self.most_settings = max(map(len, self._settings))

    def settings(self, layer: int) -> Tensor:
        """Every combination of a layer's choices: int64 ``[m, decisions of a layer]``."""
        return self._settings[layer]

    def rows(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """Architectures as sequences of layers.

        Args:
            archs: int64 ``[..., decisions]``.

        Returns:
            One row a layer, float32 ``[..., layers, columns]``, and how many layers count, int64 ``[...]``.
        """
        lengths = archs[..., self._depth] + 1 if self.grows else torch.full(archs.shape[:-1], self.layers)
        choices = archs[..., self._places]
        if self._raw:
            return choices.float(), lengths
        offsets = torch.tensor([0, *itertools.accumulate(self._widths)])[:-1]
        code = torch.zeros(*choices.shape[:-1], self.columns)
        return code.scatter_(-1, choices + offsets, 1.0), lengths

    def single(self) -> Tensor:
        """Every architecture of one layer, of a space that grows: int64 ``[m, decisions]``."""
        settings = self._settings[0]
        archs = torch.zeros(len(settings), len(self._space.decisions), dtype=torch.long)
        archs[:, self._places[0]] = settings
        return archs[self._space.is_valid(archs)]

    def extended(self, archs: Tensor, layer: int) -> Tensor:
        """Every architecture with every setting of one layer: replaced where it is there, else appended.

        Where the layer before it is missing, or the space rules the setting out, the architecture stays as it is.

        Args:
            archs: int64 ``[..., decisions]``.
            layer: from 0.

        Returns:
            Int64 ``[..., m, decisions]`` with ``m`` the number of settings.
        """
        settings = self._settings[layer]
        old = archs.unsqueeze(-2).expand(*archs.shape[:-1], len(settings), archs.shape[-1])
        new = old.clone()
        new[..., self._places[layer]] = settings.expand(*new.shape[:-1], -1)
        valid = torch.ones(new.shape[:-1], dtype=torch.bool)
        if self.grows:
            valid = old[..., self._depth] >= layer - 1
            new[..., self._depth] = new[..., self._depth].clamp(min=layer)
        return torch.where((valid & self._space.is_valid(new)).unsqueeze(-1), new, old)
