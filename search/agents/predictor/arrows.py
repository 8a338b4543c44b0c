"""Cells as graphs whose vertices are arrows: what a graph network reads."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from search.agents.predictor.cell_graph import CellGraph
from search.agents.predictor.encodings import Encoder, Encoding, graph_of
from search.randomness import TrialRandom
from search.spaces.base import SearchSpace

_DRAWN = 64
"""Architectures of a large space by which the number of arrows is told (assumed: few have more)."""
_KINDS = 32
"""Columns that the labels of a large space share (assumed)."""
FLAGS = 2
"""An arrow's flags: whether it reads an input, and whether it leads to an output."""


class ArrowEncoding(Encoding):
    """For each live arrow its label, whether it reads an input or leads to an output, and which arrows feed it.

    A group of columns is an arrow: kinds of label, `FLAGS`, and a column for each arrow that may feed it. So the number
    of kinds is the size of a group without `FLAGS` and the number of groups. Where there are fewer arrows the last
    groups are zero, where there are more they are left out.
    """

    def open(self, space: SearchSpace, whole: Tensor | None = None) -> Encoder:
        """As many groups as an architecture has arrows."""
        return _Arrows(space, whole)


class _Arrows(Encoder):
    def __init__(self, space: SearchSpace, whole: Tensor | None):
        self.space = space
        archs = space.sample(TrialRandom(0), _DRAWN)[0] if whole is None else whole
        graphs = [graph_of(space, tuple(arch)) for arch in archs.tolist()]
        self._slots = max(1, *(sum(len(graph.arrows(node)) for node in graph.order) for graph in graphs))
        labels = {label for graph in graphs for node in graph.order for label, _ in graph.arrows(node)}
        self._kinds = None if whole is None else {label: k for k, label in enumerate(sorted(labels))}
        self._kind_columns = _KINDS if whole is None else max(1, len(labels))
        size = self._kind_columns + FLAGS + self._slots
        self.groups = torch.arange(self._slots).repeat_interleave(size)

    def __call__(self, archs: Tensor) -> Tensor:
        code = torch.zeros(len(archs), self._slots, len(self.groups) // self._slots)
        ones = [
            (row, *place)
            for row, arch in enumerate(archs.tolist())
            for place in self._ones(graph_of(self.space, tuple(arch)))
        ]
        if ones:
            code[tuple(torch.tensor(ones).T)] = 1
        return code.flatten(1)

    def _ones(self, graph: CellGraph) -> list[tuple[int, int]]:
        """(slot, column) of all that is not zero."""
        arrows = [(label, source, node) for node in graph.order for label, source in graph.arrows(node)]
        places = []
        for slot, (label, source, node) in enumerate(arrows[: self._slots]):
            kind = zlib.crc32(label.encode()) % _KINDS if self._kinds is None else self._kinds[label]
            feeding = [k for k, (_, _, before) in enumerate(arrows[: self._slots]) if before == source]
            places.append((slot, kind))
            if not feeding:
                places.append((slot, self._kind_columns))
            if node in graph.outputs:
                places.append((slot, self._kind_columns + 1))
            places += [(slot, self._kind_columns + FLAGS + k) for k in feeding]
        return places
