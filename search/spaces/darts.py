"""The cell space of DARTS (Liu, Simonyan and Yang, ICLR 2019), which NAS-Bench-301 predicts accuracies of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.darts_cells import (
    DECISIONS_PER_CELL,
    INPUTS,
    OPERATION_NAMES,
    PAIRS,
    DARTSCell,
    DARTSNetwork,
    DARTSSuperCell,
    NodeChoice,
    Pairs,
    node_choices,
)
from lightning_modules.networks.supernet import Selection, Supernet
from search.errors import nearest
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head

CELLS = ("normal", "reduce")
Genotype = Iterable[tuple[str, int]]
"""A cell as DARTS publishes it: (operation, node read) pairs, two for each intermediate node."""

_FORM = "[op~0,op~1,...]"


def cell_decisions(cells: Iterable[str], pairs: Pairs) -> tuple[Decision, ...]:
    """The decisions about some cells: of each node its pair, and an operation on each node of that.

    Args:
        cells: their names.
        pairs: for each node, the pairs of nodes that it may read.
    """
    return tuple(
        decision
        for cell in cells
        for node, readable in enumerate(pairs, start=INPUTS)
        for decision in (
            Decision(f"{cell} {node} inputs", tuple(f"{earlier},{later}" for earlier, later in readable)),
            Decision(f"{cell} {node} first", OPERATION_NAMES),
            Decision(f"{cell} {node} second", OPERATION_NAMES),
        )
    )


class DARTS(SearchSpace):
    """A normal and a reduction cell of four nodes, each of which reads two different nodes before it.

    Per node there are three decisions: the pair of nodes read, the operation on the earlier one, and that on the later
    one; the normal cell comes first. That makes (180 * 7^8)^2, about 10^18 architectures.

    The canonical string is the published genotype, ``normal=[op~i,op~j,...]|reduce=[...]``: two operations a node,
    behind each ``~`` the node that it reads. Nodes 0 and 1 are the outputs of the last cell but one and of the last
    cell, 2 to 5 the cell's own.
    """

    name = "darts"
    cell_names: tuple[str, ...] = CELLS
    """Of the cells that are decided on."""
    pairs: Pairs = PAIRS
    """For each node, the pairs of nodes that it may read."""
    decisions = cell_decisions(CELLS, PAIRS)

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"channels": 4, "cells": 3}

    def cells(self, architecture: Architecture) -> dict[str, tuple[NodeChoice, ...]]:
        """What the four nodes of both cells compute, by ``normal`` and ``reduce``.

        Raises:
            ValueError: not an architecture of this space.
        """
        architecture = self.check(architecture)
        return {
            cell: node_choices(architecture[k * DECISIONS_PER_CELL : (k + 1) * DECISIONS_PER_CELL], self.pairs)
            for k, cell in enumerate(self.cell_names)
        }

    def from_genotype(self, normal: Genotype, reduce: Genotype) -> Architecture:
        """The architecture of a published genotype.

        Args:
            normal: (operation, node read) of the normal cell, two a node; either order within a node.
            reduce: the same of the reduction cell.

        Raises:
            ValueError: it does not belong to this space; says which part is wrong.
        """
        return self._read((normal, reduce))

    def _read(self, genotypes: Sequence[Genotype]) -> Architecture:
        """The architecture of genotypes, one a cell."""
        choices: list[int] = []
        for cell, genotype in zip(self.cell_names, genotypes, strict=True):
            terms = list(genotype)
            if len(terms) != 2 * len(self.pairs):
                raise ValueError(
                    f"{self.name}: the cell '{cell}' has {len(terms)} operations, {2 * len(self.pairs)} are needed, "
                    "two for each of its nodes"
                )
            for node, readable in enumerate(self.pairs):
                place = f"node {node + INPUTS} of the cell '{cell}'"
                own = [(source, self._operation(name, place)) for name, source in terms[2 * node : 2 * node + 2]]
                (first, one), (second, other) = sorted(own)
                if (first, second) not in readable:
                    raise ValueError(
                        f"{self.name}: {place} reads the nodes {first} and {second}, it must read two different ones "
                        f"of 0 to {node + INPUTS - 1}"
                    )
                choices += [list(readable).index((first, second)), one, other]
        return self.check(choices)

    def genotype(self, architecture: Architecture) -> dict[str, list[tuple[str, int]]]:
        """The cells as DARTS publishes them, by ``normal`` and ``reduce``; `from_genotype` reads them back."""
        return {
            cell: [(name, source) for node in nodes for source, name in zip(node.sources, node.operations, strict=True)]
            for cell, nodes in self.cells(architecture).items()
        }

    def format(self, architecture: Architecture) -> str:
        """The genotype as text; `parse` reads it back."""
        return "|".join(
            f"{cell}=[{','.join(f'{name}~{source}' for name, source in terms)}]"
            for cell, terms in self.genotype(architecture).items()
        )

    def parse(self, text: str) -> Architecture:
        """The architecture of a genotype's text.

        Raises:
            ValueError: the string is not one of this space; says which part is wrong.
        """
        found = re.fullmatch("[|]".join(rf"{cell}=\[([^\[\]|]*)\]" for cell in self.cell_names), text)
        if found is None:
            form = "|".join(f"{cell}={_FORM}" for cell in self.cell_names)
            raise ValueError(f"{self.name}: '{text}' must read as in {form}")
        genotypes = []
        for part in found.groups():
            terms = []
            for term in part.split(","):
                name, _, source = term.rpartition("~")
                if not re.fullmatch(r"[0-9]", source):
                    raise ValueError(f"{self.name}: '{term}' of '{text}' must be an operation, '~' and a node's number")
                terms.append((name, int(source)))
            genotypes.append(terms)
        return self._read(genotypes)

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The cells' graphs, side by side: an arrow for each operation."""
        return [
            Edge(f"{cell} {source}", f"{cell} {node}", name)
            for cell, nodes in self.cells(architecture).items()
            for node, choice in enumerate(nodes, start=INPUTS)
            for source, name in zip(choice.sources, choice.operations, strict=True)
        ]

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        channels: int = 36,
        cells: int = 20,
        stem: str = "cifar",
        auxiliary: bool = False,
    ) -> nn.Module:
        """DARTS' network of these cells, initialised from torch's random state.

        Parameters of the defaults are those of DARTS' public code; NAS-Bench-301 trained networks of 32 channels and 8
        cells.

        Args:
            architecture: of this space.
            head: of the network, 10 classes by default.
            channels: of a node of the first cells; doubled by each of the two reduction cells.
            cells: in all; those after one and two thirds are reduction cells.
            stem: ``cifar``, or ``imagenet`` for large images, which divides their resolution by eight.
            auxiliary: whether there is an auxiliary head, which `ClassificationModule` then trains too; whoever uses
                the network goes without it.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits
            ``[batch, classes]``.
        """
        nodes = self.cells(architecture)

        def build_cell(width: int, reduction: bool) -> nn.Module:
            return self._cell(nodes, width, reduction)

        return DARTSNetwork(
            build_cell, head.classes_or(10), channels, cells, head.in_channels, stem=stem, auxiliary=auxiliary
        )

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        channels: int = 36,
        cells: int = 20,
        stem: str = "cifar",
    ) -> Supernet:
        """DARTS' network with every operation on every edge, without auxiliary head; arguments as for `build`."""

        def build(selection: Selection) -> nn.Module:
            def build_cell(width: int, reduction: bool) -> nn.Module:
                return self._super_cell(selection, width, reduction, norm)

            return DARTSNetwork(build_cell, head.classes_or(10), channels, cells, head.in_channels, norm, stem)

        return Supernet(build)

    def _cell(self, nodes: Mapping[str, Sequence[NodeChoice]], channels: int, reduction: bool) -> nn.Module:
        """A cell of an architecture."""
        return DARTSCell(nodes[CELLS[reduction]], channels, reduction)

    def _super_cell(self, selection: Selection, channels: int, reduction: bool, norm: Norm) -> nn.Module:
        """A cell of the supernet."""
        return DARTSSuperCell(selection, DECISIONS_PER_CELL * reduction, channels, reduction, norm)

    def _operation(self, name: str, place: str) -> int:
        if name not in OPERATION_NAMES:
            hint = nearest(name, OPERATION_NAMES, "")
            raise ValueError(
                f"{self.name}: {place} has the operation '{name}', allowed: {', '.join(OPERATION_NAMES)}{hint}"
            )
        return OPERATION_NAMES.index(name)
