"""The cell space of DARTS (Liu, Simonyan and Yang, ICLR 2019), which NAS-Bench-301 predicts accuracies of."""

from __future__ import annotations

import re
from collections.abc import Iterable
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

_FORM = "normal=[op~0,op~1,...]|reduce=[op~0,op~1,...]"


class DARTS(SearchSpace):
    """A normal and a reduction cell of four nodes, each of which reads two different nodes before it.

    Per node there are three decisions: the pair of nodes read, the operation on the earlier one, and that on the later
    one; the normal cell comes first. That makes (180 * 7^8)^2, about 10^18 architectures.

    The canonical string is the published genotype, ``normal=[op~i,op~j,...]|reduce=[...]``: two operations a node,
    behind each ``~`` the node that it reads. Nodes 0 and 1 are the outputs of the last cell but one and of the last
    cell, 2 to 5 the cell's own.
    """

    name = "darts"
    decisions = tuple(
        decision
        for cell in CELLS
        for node, pairs in enumerate(PAIRS, start=INPUTS)
        for decision in (
            Decision(f"{cell} {node} inputs", tuple(f"{earlier},{later}" for earlier, later in pairs)),
            Decision(f"{cell} {node} first", OPERATION_NAMES),
            Decision(f"{cell} {node} second", OPERATION_NAMES),
        )
    )

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
            cell: node_choices(architecture[k * DECISIONS_PER_CELL : (k + 1) * DECISIONS_PER_CELL])
            for k, cell in enumerate(CELLS)
        }

    def from_genotype(self, normal: Genotype, reduce: Genotype) -> Architecture:
        """The architecture of a published genotype.

        Args:
            normal: (operation, node read) of the normal cell, two a node; either order within a node.
            reduce: the same of the reduction cell.

        Raises:
            ValueError: it does not belong to this space; says which part is wrong.
        """
        choices: list[int] = []
        for cell, genotype in zip(CELLS, (normal, reduce), strict=True):
            terms = list(genotype)
            if len(terms) != 2 * len(PAIRS):
                raise ValueError(
                    f"{self.name}: the cell '{cell}' has {len(terms)} operations, {2 * len(PAIRS)} are needed, two for "
                    "each of its nodes"
                )
            for node, pairs in enumerate(PAIRS):
                own = sorted(terms[2 * node : 2 * node + 2], key=lambda term: term[1])
                sources = tuple(source for _, source in own)
                if sources not in pairs:
                    raise ValueError(
                        f"{self.name}: node {node + INPUTS} of the cell '{cell}' reads the nodes "
                        f"{' and '.join(str(source) for source in sources)}, it must read two different ones of 0 to "
                        f"{node + INPUTS - 1}"
                    )
                choices.append(pairs.index(sources))
                choices.extend(self._operation(name, f"node {node + INPUTS} of the cell '{cell}'") for name, _ in own)
        return tuple(choices)

    def genotype(self, architecture: Architecture) -> dict[str, list[tuple[str, int]]]:
        """Both cells as DARTS publishes them, by ``normal`` and ``reduce``; `from_genotype` reads them back."""
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
        found = re.fullmatch(r"normal=\[([^\[\]|]*)\]\|reduce=\[([^\[\]|]*)\]", text)
        if found is None:
            raise ValueError(f"{self.name}: '{text}' must read as in {_FORM}")
        genotypes = []
        for part in found.groups():
            terms = []
            for term in part.split(","):
                name, _, source = term.rpartition("~")
                if not re.fullmatch(r"[0-9]", source):
                    raise ValueError(f"{self.name}: '{term}' of '{text}' must be an operation, '~' and a node's number")
                terms.append((name, int(source)))
            genotypes.append(terms)
        return self.from_genotype(*genotypes)

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """Both cells' graphs, side by side: an arrow for each operation."""
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
    ) -> nn.Module:
        """DARTS' network of these cells, initialised from torch's random state.

        It has no auxiliary head. Parameters of the defaults are those of DARTS' public code; NAS-Bench-301 trained
        networks of 32 channels and 8 cells.

        Args:
            architecture: of this space.
            head: of the network, 10 classes by default.
            channels: of a node of the first cells; doubled by each of the two reduction cells.
            cells: in all; those after one and two thirds are reduction cells.
            stem: ``cifar``, or ``imagenet`` for large images, which divides their resolution by eight.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits
            ``[batch, classes]``.
        """
        nodes = self.cells(architecture)

        def build_cell(width: int, reduction: bool) -> DARTSCell:
            return DARTSCell(nodes[CELLS[reduction]], width, reduction)

        return DARTSNetwork(build_cell, head.classes_or(10), channels, cells, head.in_channels, stem=stem)

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        channels: int = 36,
        cells: int = 20,
        stem: str = "cifar",
    ) -> Supernet:
        """DARTS' network with every operation on every edge; arguments as for `build`."""

        def build(selection: Selection) -> nn.Module:
            def build_cell(width: int, reduction: bool) -> DARTSSuperCell:
                return DARTSSuperCell(selection, DECISIONS_PER_CELL * reduction, width, reduction, norm)

            return DARTSNetwork(build_cell, head.classes_or(10), channels, cells, head.in_channels, norm, stem)

        return Supernet(build)

    def _operation(self, name: str, place: str) -> int:
        if name not in OPERATION_NAMES:
            hint = nearest(name, OPERATION_NAMES, "")
            raise ValueError(
                f"{self.name}: {place} has the operation '{name}', allowed: {', '.join(OPERATION_NAMES)}{hint}"
            )
        return OPERATION_NAMES.index(name)
