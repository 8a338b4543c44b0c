"""What can be asked next, encoded: a whole space where it is small enough, else a sample and mutants of the best."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search.agents.predictor.encodings import Encoding, SideBySide, names_of
from search.attributes.base import Attribute
from search.attributes.quantiles import QuantileColumns
from search.randomness import TrialRandom
from search.spaces.base import SearchSpace

_REFERENCE = 256
"""Architectures of a large space by which columns are scaled and attributes ranked (assumed: enough for means)."""


@dataclass(frozen=True)
class Candidates:
    """Architectures to choose from.

    Attributes:
        archs: int64 ``[trials or 1, m, decisions]``.
        features: float32 ``[trials or 1, m, columns]``.
        names: int64 ``[trials or 1, m]``: equal networks share theirs.
    """

    archs: Tensor
    features: Tensor
    names: Tensor


class Pool(ABC):
    """The candidates of a search, and the features of all that is evaluated.

    Attributes:
        blocks: int64 ``[columns]``: which encoding each column is of; attributes are the last one.
        groups: int64 ``[columns]``: which columns belong together, numbered over all blocks.
    """

    blocks: Tensor
    groups: Tensor

    @abstractmethod
    def candidates(self, best: Tensor, rng: TrialRandom) -> Candidates:
        """What to choose from.

        Args:
            best: int64 ``[trials, k, decisions]``, evaluated architectures in whose neighbourhood to look; k may be 0.
            rng: one stream a trial.
        """

    @abstractmethod
    def features(self, archs: Tensor) -> Tensor:
        """Of any architectures: int64 ``[trials, n, decisions]`` to float32 ``[trials, n, columns]``."""

    @abstractmethod
    def names(self, archs: Tensor) -> Tensor:
        """Of any architectures: int64 ``[trials, n, decisions]`` to ``[trials, n]``; equal networks share theirs."""


class WholeSpace(Pool):
    """Every network of a space once, encoded once.

    Args:
        space: of the architectures, at most some ten thousand.
        encodings: of the columns.
        attributes: further columns, by name.
        by_graph: whether architectures of equal graphs are one network, or those of one canonical form alone.
    """

    def __init__(
        self,
        space: SearchSpace,
        encodings: Sequence[Encoding],
        attributes: Mapping[str, Attribute],
        by_graph: bool = True,
    ):
        archs = torch.tensor(list(space.enumerate()))
        names = names_of(space, archs) if by_graph else space.code(space.canonical(archs))
        _, place, first = _first_of_each(names)
        self.space, self._place = space, place
        self._by_code = torch.full((math.prod(space.sizes),), -1)
        self._by_code[space.code(archs)] = place
        archs, names = archs[first], names[first]
        encoder = SideBySide([encoding.open(space, archs) for encoding in encodings])
        columns = Columns(space, encoder, attributes, archs)
        self.blocks, self.groups = columns.blocks, columns.groups
        self._all = Candidates(archs[None], columns(archs)[None], names[None])

    def candidates(self, best: Tensor, rng: TrialRandom) -> Candidates:
        """All of them, always the same."""
        return self._all

    def features(self, archs: Tensor) -> Tensor:
        """As they were encoded."""
        return self._all.features[0][self._by_code[self.space.code(archs)]]

    def names(self, archs: Tensor) -> Tensor:
        """As they were found."""
        return self._all.names[0][self._by_code[self.space.code(archs)]]


class Neighbourhood(Pool):
    """Mutants of the best and random architectures, drawn anew each time.

    Args:
        space: of the architectures.
        encodings: of the columns.
        attributes: further columns, by name.
        count: candidates, half of them mutants once there is something to mutate.
    """

    def __init__(
        self, space: SearchSpace, encodings: Sequence[Encoding], attributes: Mapping[str, Attribute], count: int
    ):
        self.space, self.count = space, count
        reference = space.sample(TrialRandom(0), _REFERENCE)[0]
        encoder = SideBySide([encoding.open(space) for encoding in encodings])
        self._columns = Columns(space, encoder, attributes, reference)
        self.blocks, self.groups = self._columns.blocks, self._columns.groups

    def candidates(self, best: Tensor, rng: TrialRandom) -> Candidates:
        """Half mutants of ``best`` in turn, half random ones."""
        mutants = self.count // 2 if best.shape[1] else 0
        archs = self.space.sample(rng, self.count - mutants)
        if mutants:
            parents = best[:, torch.arange(mutants) % best.shape[1]]
            archs = torch.cat([archs, self.space.mutate(parents, rng)], 1)
        return Candidates(archs, self.features(archs), self.names(archs))

    def features(self, archs: Tensor) -> Tensor:
        """Encoded now, in the canonical form."""
        flat = self.space.canonical(archs.reshape(-1, archs.shape[-1]))
        return self._columns(flat).reshape(*archs.shape[:-1], len(self.blocks))

    def names(self, archs: Tensor) -> Tensor:
        """Found now."""
        return names_of(self.space, archs.reshape(-1, archs.shape[-1])).reshape(archs.shape[:-1])


def _first_of_each(names: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Different names, for each entry the place of its name among these, and for each of these its first entry."""
    different, place = names.unique(return_inverse=True)
    first = torch.full_like(different, len(names))
    first.scatter_reduce_(0, place, torch.arange(len(names)), "amin")
    order = first.argsort()  # in the order of the space
    return different[order], order.argsort()[place], first[order]


class Columns:
    """Scaled codes and attributes.

    Args:
        space: of the architectures.
        encoder: of the codes.
        attributes: each a column of normal quantiles of ranks; 0, the middle, where there is no value.
        reference: int64 ``[n, decisions]``, by which columns are scaled and attributes ranked.

    Attributes:
        blocks: int64 ``[columns]``: which encoding each column is of; attributes are the last one.
        groups: int64 ``[columns]``: which columns belong together, numbered over all blocks.
    """

    def __init__(self, space: SearchSpace, encoder: SideBySide, attributes: Mapping[str, Attribute], reference: Tensor):
        self._encoder, self._attributes = encoder, QuantileColumns(space, attributes, reference)
        self.blocks, self.groups = encoder.blocks, encoder.groups
        if attributes:
            numbers = torch.arange(len(attributes))
            self.blocks = torch.cat([self.blocks, torch.full_like(numbers, int(self.blocks.max()) + 1)])
            self.groups = torch.cat([self.groups, numbers + int(self.groups.max()) + 1])
        self._scale = torch.ones(len(self.blocks))
        self._scale = self._scales(self(reference).double()).float()

    def _scales(self, features: Tensor) -> Tensor:
        """Factors that make the mean squared distance of a group 1 over the number of groups in its block."""
        variances = features.var(0, correction=0)
        of_group = torch.zeros(int(self.groups.max()) + 1, dtype=torch.float64).index_add_(0, self.groups, variances)
        block_of = torch.zeros(len(of_group), dtype=torch.long).scatter_(0, self.groups, self.blocks)
        beside = torch.bincount(block_of)[block_of]
        wanted = 1 / (2 * of_group * beside)  # two random architectures differ by twice the variance
        return torch.where(of_group > 0, wanted, 0.0).sqrt()[self.groups]

    def __call__(self, archs: Tensor) -> Tensor:
        """Int64 ``[n, decisions]`` to float32 ``[n, columns]``."""
        return torch.cat([self._encoder(archs), self._attributes(archs)], 1) * self._scale
