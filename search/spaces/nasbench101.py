"""The cell space of NAS-Bench-101 (Ying et al., ICML 2019)."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.nasbench101_cells import (
    OPERATION_NAMES,
    CellGraph,
    VertexCell,
    VertexCellNetwork,
    VertexSuperCell,
)
from lightning_modules.networks.supernet import Selection, Supernet
from search.errors import nearest
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head

VERTICES, MAX_EDGES = 7, 9
OUTPUT = VERTICES - 1
EDGES = tuple((source, source + length) for length in range(1, VERTICES) for source in range(VERTICES - length))
"""(source, target) in the order of the decisions.

Short edges first: of the orders that were tried it is the one whose uniform choices leave the widest spread of cells
behind. When the ninth edge is drawn, what the later decisions would have offered is lost, and long edges are the ones
that other paths can stand in for.
"""
_INTERIOR = tuple(range(1, OUTPUT))
_UNREACHABLE = 100


class NASBench101(SearchSpace):
    """Seven vertices, at most nine edges, one of three operations on each of five: 423,624 different cells.

    Vertex 0 is the input, vertex 6 the output. There is a decision for each of the 21 edges from a vertex to a later
    one, and one for the operation of each of the five others; a path must lead from input to output. Vertices that are
    on no such path do nothing, and vertices can be renumbered, so a cell has many architectures: `canonical` tells
    which of them stands for it, and `spec_hash` is the benchmark's name of it.

    The canonical string has one part a vertex, with the vertices that it reads:
    ``conv3x3-bn-relu(0)|maxpool3x3(0,1)|conv1x1-bn-relu()|conv3x3-bn-relu()|conv3x3-bn-relu()|output(1,2)``.
    """

    name = "nasbench101"
    decisions = (
        *(Decision(f"{target}<-{source}", ("absent", "present")) for source, target in EDGES),
        *(Decision(f"vertex {vertex}", OPERATION_NAMES) for vertex in _INTERIOR),
    )

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"channels": 8, "cells": 1}

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Which choices of the next decision leave a valid cell within reach.

        An edge may be present or absent if the edges that a path from input to output still lacks fit into nine.

        Args:
            prefix: int64 ``[..., t]``.

        Returns:
            Bool ``[..., 2]`` for an edge, ``[..., 3]`` for an operation.
        """
        decided = prefix.shape[-1]
        if decided >= len(EDGES):
            return super().valid_choices(prefix)
        of_present, otherwise = (each.to(prefix.device) for each in self._edges_by_path[decided])
        edges = (prefix.float() @ of_present).unsqueeze(-2) + otherwise  # small whole numbers: exact
        return edges.amin(-1) <= MAX_EDGES

    def check(self, architecture: Sequence[int]) -> Architecture:
        """The architecture as a tuple of ints; errors as in the contract, found without tensors."""
        arch = tuple(int(choice) for choice in architecture)
        in_range = len(arch) == len(self.sizes) and all(0 <= k < n for k, n in zip(arch, self.sizes, strict=True))
        if in_range and sum(arch[: len(EDGES)]) <= MAX_EDGES and _has_path(arch):
            return arch
        return super().check(arch)  # which says what is wrong

    # ---- strings -----------------------------------------------------------------------------------------------------

    def format(self, architecture: Architecture) -> str:
        """The canonical string; `parse` reads it back."""
        edges, operations = _split(self.check(architecture))
        names = [*(OPERATION_NAMES[choice] for choice in operations), "output"]
        return "|".join(
            f"{name}({','.join(str(source) for source in range(target) if (source, target) in edges)})"
            for target, name in enumerate(names, start=1)
        )

    def parse(self, text: str) -> Architecture:
        """The architecture of a canonical string.

        Raises:
            ValueError: the string is not one of this space; says which part is wrong.
        """
        parts = text.split("|")
        if len(parts) != OUTPUT:
            raise ValueError(
                f"{self.name}: '{text}' has {len(parts)} vertices, {OUTPUT} are needed: {len(_INTERIOR)} operations "
                f"and 'output', each with what it reads, as in {OPERATION_NAMES[0]}(0,1)"
            )
        edges: set[tuple[int, int]] = set()
        operations = []
        for target, part in enumerate(parts, start=1):
            match = re.fullmatch(r"([^()]*)\(((?:\d(?:,\d)*)?)\)", part)
            if match is None:
                raise ValueError(
                    f"{self.name}: vertex {target} of '{text}' is '{part}', it must read as in output(0,1)"
                )
            name, allowed = match[1], OPERATION_NAMES if target < OUTPUT else ("output",)
            if name not in allowed:
                hint = nearest(name, allowed, "")
                raise ValueError(
                    f"{self.name}: vertex {target} of '{text}' is '{name}', allowed: {', '.join(allowed)}{hint}"
                )
            sources = [int(source) for source in match[2].split(",") if source]
            if sources != sorted(set(sources)) or any(source >= target for source in sources):
                raise ValueError(
                    f"{self.name}: vertex {target} of '{text}' reads ({match[2]}), "
                    f"it may read vertices 0 to {target - 1}, in ascending order"
                )
            edges.update((source, target) for source in sources)
            operations.append(allowed.index(name))
        return self.check(_join(edges, operations[:-1]))

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The pruned cell's graph; an arrow is labelled with what its target makes of it."""
        graph = self.graph(architecture)
        return [
            Edge(str(source), str(target), _label(graph, source, target))
            for target in (*graph.vertices, graph.output)
            for source in graph.sources[target - 1]
        ]

    # ---- one cell, many architectures --------------------------------------------------------------------------------

    def graph(self, architecture: Architecture) -> CellGraph:
        """The pruned graph of an architecture.

        Raises:
            ValueError: not an architecture of this space.
        """
        return _graph(self.check(architecture))

    def prune(self, architecture: Architecture) -> Architecture:
        """The architecture without what lies on no path from input to output.

        Vertices keep their numbers; one that is left out has no edges and the first operation.

        Raises:
            ValueError: not an architecture of this space.
        """
        graph = self.graph(architecture)
        edges = {(source, target) for target, sources in enumerate(graph.sources, start=1) for source in sources}
        return _join(edges, [graph.operations[v - 1] if v in graph.vertices else 0 for v in _INTERIOR])

    def canonical(self, archs: Tensor) -> Tensor:
        """The one architecture that stands for all those of the same cell.

        Two architectures have the same cell if, pruned, one is a renumbering of the other's vertices. Of all
        renumberings the one is taken that reads as the largest number, first the edges by target and source, then the
        operations; so vertices without edges come last.

        Args:
            archs: int64 ``[..., decisions]``, valid.

        Returns:
            The same shape.
        """
        flat = archs.reshape(-1, len(self.sizes))
        return torch.cat([self._canonical(chunk) for chunk in flat.split(4096)]).reshape(archs.shape)

    def spec_hash(self, architecture: Architecture) -> str:
        """The benchmark's name of the cell: 32 hexadecimal digits, the same for all architectures of a cell.

        MD5 of what MD5 gives after as many rounds of message passing as the pruned cell has vertices, which begin with
        (out-degree, in-degree, label) of each vertex (NAS-Bench-101, its public code).

        Raises:
            ValueError: not an architecture of this space.
        """
        graph = self.graph(architecture)
        vertices = (0, *graph.vertices, graph.output)
        labels = {0: -1, graph.output: -2, **{vertex: graph.operations[vertex - 1] for vertex in graph.vertices}}
        sources = {vertex: graph.sources[vertex - 1] if vertex else () for vertex in vertices}
        targets = {vertex: [other for other in vertices if vertex in sources[other]] for vertex in vertices}
        digests = {v: _md5(str((len(targets[v]), len(sources[v]), labels[v]))) for v in vertices}
        for _ in vertices:
            digests = {
                vertex: _md5(
                    "|".join(
                        (
                            "".join(sorted(digests[other] for other in sources[vertex])),
                            "".join(sorted(digests[other] for other in targets[vertex])),
                            digests[vertex],
                        )
                    )
                )
                for vertex in vertices
            }
        return _md5(str(sorted(digests.values())))

    # ---- networks ----------------------------------------------------------------------------------------------------

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        channels: int = 128,
        cells: int = 3,
    ) -> nn.Module:
        """The benchmark's network of that cell, initialised from torch's random state.

        Parameters of the defaults are the benchmark's own, except where three vertices feed the output and the
        benchmark trained another numbering of the same cell: then the odd channels of 128 = 43 + 43 + 42 lie elsewhere
        (in 527 of 30,001 published cells).

        Args:
            architecture: of this space.
            head: of the network, 10 classes by default.
            channels: of the first stack, at least 5; doubled at each of the two that follow.
            cells: in each of the three stacks.

        Returns:
            A module from ``[batch, in_channels, height, width]``, at least 4 pixels each way, to logits
            ``[batch, classes]``.
        """
        with torch.device("cpu"):  # a network may be built under torch.device("meta"), which has no values to check
            graph = self.graph(architecture)
        return VertexCellNetwork(
            lambda inputs, outputs: VertexCell(graph, inputs, outputs),
            head.classes_or(10),
            channels,
            cells,
            head.in_channels,
        )

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        channels: int = 128,
        cells: int = 3,
    ) -> Supernet:
        """The benchmark's network with every operation on every vertex; arguments as for `build`.

        Weights are held at the cell's full number of channels; a path takes the first ones of them, as many as its
        vertex has. Normalisation layers, which must treat each channel on its own, are sliced too.
        """

        def build(selection: Selection) -> nn.Module:
            def build_cell(inputs: int, outputs: int) -> VertexSuperCell:
                return VertexSuperCell(selection, _graph, len(EDGES), len(_INTERIOR), inputs, outputs, norm)

            return VertexCellNetwork(build_cell, head.classes_or(10), channels, cells, head.in_channels, norm)

        return Supernet(build)

    # ---- tables of bits ----------------------------------------------------------------------------------------------

    @cached_property
    def _edges_by_path(self) -> list[tuple[Tensor, Tensor]]:
        """For each edge's decision: what counts the edges of a cell once each of the 32 paths in it is complete.

        Returns:
            Float32 ``[t, 32]``, what an edge that is present adds to the count; and float32 ``[2, 32]``, the count
            where all ``t`` edges are absent and the next is absent or present. A path that lacks an edge which is
            absent has `_UNREACHABLE` edges and more.
        """
        inner = itertools.chain.from_iterable(itertools.combinations(_INTERIOR, n) for n in range(len(_INTERIOR) + 1))
        paths = [set(itertools.pairwise((0, *vertices, OUTPUT))) for vertices in inner]
        on = torch.tensor([[edge in path for path in paths] for edge in EDGES], dtype=torch.float32, device="cpu")
        return [
            (
                1 - _UNREACHABLE * on[:t],
                on[t + 1 :].sum(0) + _UNREACHABLE * on[:t].sum(0) + torch.stack([_UNREACHABLE * on[t], 1 + 0 * on[t]]),
            )
            for t in range(len(EDGES))
        ]

    @cached_property
    def _by_target(self) -> Tensor:
        """Decisions of the edges, sorted by target and source: int64 ``[21]``."""
        order = sorted(range(len(EDGES)), key=lambda decision: EDGES[decision][::-1])
        return torch.tensor(order, device="cpu")

    @cached_property
    def _renumberings(self) -> tuple[Tensor, Tensor]:
        """Every renumbering of the vertices between input and output.

        Returns:
            Int64 ``[120, 26]``, where each decision of the renumbered architecture is found in the old one; and bool
            ``[120, 21]``, which old edges would then point backwards.
        """
        decision = {edge: k for k, edge in enumerate(EDGES)}
        places, backward = [], []
        for order in itertools.permutations(_INTERIOR):  # the old number of each new one
            old = (0, *order, OUTPUT)
            new = {vertex: k for k, vertex in enumerate(old)}
            # Between two vertices there is one edge, whichever way round; `backward` says when that is wrong.
            edges = [decision[min(old[a], old[b]), max(old[a], old[b])] for a, b in EDGES]
            places.append([*edges, *(len(EDGES) + vertex - 1 for vertex in order)])
            backward.append([new[a] > new[b] for a, b in EDGES])
        return torch.tensor(places, device="cpu"), torch.tensor(backward, device="cpu")

    def _canonical(self, archs: Tensor) -> Tensor:
        """`canonical` of int64 ``[n, decisions]``."""
        archs = _prune(archs)
        edges = archs[:, : len(EDGES)]
        places, backward = self._renumberings
        weights = 2 ** torch.arange(len(EDGES) - 1, -1, -1, device="cpu")
        rank = torch.empty_like(weights).scatter_(0, self._by_target, weights) * len(OPERATION_NAMES) ** len(_INTERIOR)
        digits = len(OPERATION_NAMES) ** torch.arange(len(_INTERIOR) - 1, -1, -1, device="cpu")
        worth = torch.cat([rank, digits])
        # What an old decision is worth in each new place, so that nothing is moved before the best is known.
        old_worth = torch.zeros(places.shape, dtype=torch.long).scatter_(1, places, worth.expand_as(places))
        number = archs.double() @ old_worth.double().T  # below 2^53: exact
        number[(edges.double() @ backward.double().T) > 0] = -1
        return archs.gather(1, places[number.argmax(1)])


def _prune(archs: Tensor) -> Tensor:
    """`NASBench101.prune` of int64 ``[n, decisions]``."""
    forward = torch.zeros(len(archs), VERTICES, dtype=torch.bool)
    backward = forward.clone()
    forward[:, 0] = backward[:, OUTPUT] = True
    present = {edge: archs[:, decision] > 0 for decision, edge in enumerate(EDGES)}
    for source, target in sorted(EDGES):
        forward[:, target] |= forward[:, source] & present[source, target]
    for source, target in sorted(EDGES, reverse=True):
        backward[:, source] |= backward[:, target] & present[source, target]
    kept = forward & backward
    mask = [kept[:, source] & kept[:, target] for source, target in EDGES] + [kept[:, v] for v in _INTERIOR]
    return archs * torch.stack(mask, dim=1)


def _has_path(architecture: Architecture) -> bool:
    reached = {0}
    for (source, target), choice in sorted(zip(EDGES, architecture, strict=False)):
        if choice and source in reached:
            reached.add(target)
    return OUTPUT in reached


@lru_cache(maxsize=4096)
def _graph(architecture: Architecture) -> CellGraph:
    return CellGraph.of(*_split(architecture))


def _split(architecture: Sequence[int]) -> tuple[set[tuple[int, int]], tuple[int, ...]]:
    """Edges that are present, and operations."""
    if len(architecture) != len(EDGES) + len(_INTERIOR):
        raise ValueError(f"{NASBench101.name}: {architecture} has not {len(EDGES) + len(_INTERIOR)} decisions")
    return {edge for k, edge in enumerate(EDGES) if architecture[k]}, tuple(architecture[len(EDGES) :])


def _join(edges: set[tuple[int, int]], operations: Sequence[int]) -> Architecture:
    """The inverse of `_split`."""
    return (*(int(edge in edges) for edge in EDGES), *operations)


def _label(graph: CellGraph, source: int, target: int) -> str:
    if target < graph.output:
        return OPERATION_NAMES[graph.operations[target - 1]]
    return "concatenate" if source else "project, add"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
