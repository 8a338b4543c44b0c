"""Architectures as numbers: what a predictor reads.

An encoding says what it is (`Encoding`); looking at a space it becomes an `Encoder`, which has the columns.
"""

from __future__ import annotations

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from search.agents.predictor.cell_graph import CellGraph, Ends
from search.evaluation import Architecture
from search.spaces.base import SearchSpace

_GRAPHS = 2**14
"""Graphs that are kept, some kilobytes each: all of NAS-Bench-201, which several agents then read once."""
_HASHED_COLUMNS = 512
"""Columns of a space that is too large to know all of its patterns (assumed: few of them meet in one)."""


class Encoder(ABC):
    """Encodes the architectures of one space.

    Attributes:
        groups: int64 ``[columns]``, from 0: columns of a group have one length scale where a predictor learns any.
    """

    groups: Tensor

    @abstractmethod
    def __call__(self, archs: Tensor) -> Tensor:
        """Int64 ``[n, decisions]`` to float32 ``[n, columns]``."""


class Encoding(ABC):
    """How to encode architectures of any space."""

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {}

    @abstractmethod
    def open(self, space: SearchSpace, whole: Tensor | None = None) -> Encoder:
        """An encoder of a space's architectures.

        Args:
            space: theirs.
            whole: int64 ``[n, decisions]``, all that will ever be encoded, where that is known.
        """


# ---- decisions -------------------------------------------------------------------------------------------------------


class OneHotEncoding(Encoding):
    """A column for each choice of each decision; a group for each decision."""

    def open(self, space: SearchSpace, whole: Tensor | None = None) -> Encoder:
        """Columns as in `SearchSpace.one_hot`."""
        return _OneHot(space)


class _OneHot(Encoder):
    def __init__(self, space: SearchSpace):
        self.space = space
        self.groups = torch.repeat_interleave(torch.arange(len(space.sizes)), torch.tensor(space.sizes))

    def __call__(self, archs: Tensor) -> Tensor:
        return self.space.one_hot(archs)


# ---- counted patterns ------------------------------------------------------------------------------------------------


class PathEncoding(Encoding):
    """A column for each sequence of labels on a way from input to output (White et al., BANANAS, AAAI 2021, sec. 4).

    Of a space whose arrows may hand on what they read (`SearchSpace.identity`) these are left out of the sequences, so
    equal cells have equal codes.

    Args:
        counts: square roots of how many ways there are; else 1 where there is one, as in the paper.
    """

    def __init__(self, counts: bool = False):
        self.counts = counts

    def open(self, space: SearchSpace, whole: Tensor | None = None) -> Encoder:
        """A column for each sequence that two architectures have."""
        return _Patterns(space, whole, lambda graph: _named(graph.paths()), self.counts)


class SubtreeEncoding(Encoding):
    """A column for each arrow as it is seen with what feeds it: Weisfeiler-Lehman features (NASBOWL, ICLR 2021).

    Entries are square roots of counts, so that a Gaussian kernel of them is one of histograms (Hellinger's distance).

    Args:
        depth: how many arrows back it is seen.
    """

    def __init__(self, depth: int = 1):
        if depth < 0:
            raise ValueError(f"SubtreeEncoding: depth is {depth}, it must be at least 0")
        self.depth = depth

    def open(self, space: SearchSpace, whole: Tensor | None = None) -> Encoder:
        """A column for each pattern that two architectures have."""
        return _Patterns(space, whole, lambda graph: graph.subtrees(self.depth), counts=True)


class _Patterns(Encoder):
    """Counts of patterns; of a space that is not known as a whole their hashes share columns."""

    def __init__(self, space: SearchSpace, whole: Tensor | None, find: Any, counts: bool):
        self.space, self._find, self._counts = space, find, counts
        self._columns: dict[str, int] | None = None
        size = _HASHED_COLUMNS
        if whole is not None:
            found = Counter(pattern for arch in whole.tolist() for pattern in find(graph_of(space, tuple(arch))))
            # What one architecture alone has says nothing of others; where drawings are chains, every path is such.
            shared = sorted(pattern for pattern, count in found.items() if count > 1)
            self._columns = {pattern: k for k, pattern in enumerate(shared)}
            size = max(1, len(self._columns))
        self.groups = torch.zeros(size, dtype=torch.long)

    def __call__(self, archs: Tensor) -> Tensor:
        code = torch.zeros(len(archs), len(self.groups))
        rows, columns, values = [], [], []
        for row, arch in enumerate(archs.tolist()):
            for pattern, count in self._find(graph_of(self.space, tuple(arch))).items():
                column = self._column(pattern)
                if column is not None:
                    rows.append(row)
                    columns.append(column)
                    values.append(float(count))
        code.index_put_((torch.tensor(rows).long(), torch.tensor(columns).long()), torch.tensor(values), True)
        return code.sqrt() if self._counts else (code > 0).float()

    def _column(self, pattern: str) -> int | None:
        if self._columns is None:
            return zlib.crc32(pattern.encode()) % _HASHED_COLUMNS
        return self._columns.get(pattern)


def _named(paths: Counter[tuple[str, ...]]) -> Counter[str]:
    return Counter({">".join(labels): count for labels, count in paths.items()})


# ---- graphs of architectures -----------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _ends(space: SearchSpace) -> Ends:
    return Ends.of(space)


@lru_cache(maxsize=_GRAPHS)
def graph_of(space: SearchSpace, architecture: Architecture) -> CellGraph:
    """The graph of an architecture, read once."""
    return CellGraph.of(space, architecture, _ends(space))


def names_of(space: SearchSpace, archs: Tensor) -> Tensor:
    """Numbers that equal networks share, by `SearchSpace.canonical` and by their graphs.

    Args:
        space: of the architectures.
        archs: int64 ``[n, decisions]``.

    Returns:
        Int64 ``[n]``. Different networks have different ones but for a chance of one in 2^63 a pair.
    """
    canonical = space.canonical(archs)
    if not space.identity or not len(archs):
        return space.code(canonical)
    names = (graph_of(space, tuple(arch)).name for arch in canonical.tolist())
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests], dtype=torch.long)


# ---- several side by side --------------------------------------------------------------------------------------------


class SideBySide(Encoder):
    """Several encoders' columns.

    Attributes:
        blocks: int64 ``[columns]``: whose each column is.
        groups: int64 ``[columns]``, numbered over all.
    """

    def __init__(self, encoders: Sequence[Encoder]):
        self.encoders = list(encoders)
        blocks, groups, first = [], [], 0
        for number, encoder in enumerate(self.encoders):
            blocks.append(torch.full_like(encoder.groups, number))
            groups.append(encoder.groups + first)
            first += int(encoder.groups.max()) + 1
        self.blocks, self.groups = torch.cat(blocks), torch.cat(groups)

    def __call__(self, archs: Tensor) -> Tensor:
        """Int64 ``[n, decisions]`` to float32 ``[n, columns]``."""
        return torch.cat([encoder(archs) for encoder in self.encoders], 1)
