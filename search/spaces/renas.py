"""The cell space of RENAS (Chen et al., CVPR 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.renas import INPUTS, NODES, OPERATION_NAMES, RENASNetwork, Term
from search.errors import nearest
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head

PUBLISHED: dict[str, Architecture] = {
    "RENASNet-D": (1, 0, 0, 1, 7, 1, 0, 1, 0, 0, 3, 0, 1, 1, 0, 0, 7, 2, 0, 2),
}
"""The cell of the published network, as its code gives it."""
PARTS = 4
"""Decisions of a node: operation and input, twice."""


class RENAS(SearchSpace):
    """One cell of five nodes, each the sum of two operations on two earlier states: 20 decisions, 5.57e14 cells.

    The reduction cells are the same cell with stride 2, as in the published network. The canonical string is
    ``op~i,op~j|...``, a node between bars; behind each ``~`` stands what the operation reads: 0 the output of the cell
    before the last one, 1 the last one's, 2 the first node, and so on.
    """

    name = "renas"
    decisions = tuple(
        Decision(f"node {node} {place} {part}", choices)
        for node in range(NODES)
        for place in ("first", "second")
        for part, choices in (
            ("operation", OPERATION_NAMES),
            ("input", tuple(str(source) for source in range(node + INPUTS))),
        )
    )

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` for a network of a moment."""
        return {"channels": 4, "cells": 1, "stem": "imagenet"}

    def nodes(self, architecture: Architecture) -> list[tuple[Term, Term]]:
        """What the nodes add up.

        Raises:
            ValueError: not an architecture of this space.
        """
        codes = self.check(architecture)
        terms = [Term(OPERATION_NAMES[codes[k]], codes[k + 1]) for k in range(0, len(codes), 2)]
        return list(zip(terms[::2], terms[1::2], strict=True))

    def representative(self, archs: Tensor) -> Tensor:
        """The order of a sum does not matter: the smaller pair of operation and input first, to the same shape."""
        nodes = archs.reshape(*archs.shape[:-1], NODES, 2, 2)
        code = nodes[..., 0] * (NODES + INPUTS) + nodes[..., 1]
        swapped = (code[..., 0] > code[..., 1])[..., None, None]
        return torch.where(swapped, nodes.flip(-2), nodes).reshape(archs.shape)

    def format(self, architecture: Architecture) -> str:
        """The cell as text; `parse` reads it back."""
        return "|".join(
            ",".join(f"{term.operation}~{term.source}" for term in terms) for terms in self.nodes(architecture)
        )

    def parse(self, text: str) -> Architecture:
        """The architecture of a cell's text.

        Raises:
            ValueError: the string is not one of this space; says which part is wrong.
        """
        codes: list[int] = []
        for part in [term for node in text.split("|") for term in node.split(",")]:
            name, _, source = part.rpartition("~")
            if name not in OPERATION_NAMES or not (source.isdigit() and source.isascii()):
                hint = nearest(name, OPERATION_NAMES, "")
                raise ValueError(f"{self.name}: '{part}' of '{text}' must be an operation, '~' and a number{hint}")
            codes += [OPERATION_NAMES.index(name), int(source)]
        architecture = self.check(codes)
        if self.format(architecture) != text:
            raise ValueError(f"{self.name}: '{text}' must read as '{self.format(architecture)}'")
        return architecture

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The cell's graph: an arrow for each operation."""
        return [
            Edge(str(term.source), str(node), term.operation)
            for node, terms in enumerate(self.nodes(architecture), start=INPUTS)
            for term in terms
        ]

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        channels: int = 32,
        cells: int = 6,
        stem: str = "cifar",
        dropout: float = 0.0,
    ) -> nn.Module:
        """The network of a cell, initialised from torch's random state; it has no auxiliary head.

        Args:
            architecture: of this space.
            head: of the network, 10 classes by default.
            channels: of a node of the first stage, C: 32 for CIFAR-10, 44 for ImageNet.
            cells: normal cells in each of the three stages: 6 for CIFAR-10, 4 for ImageNet.
            stem: ``cifar``, or ``imagenet`` for large images, which divides their resolution by eight.
            dropout: before the classifier: .5 for CIFAR-10, .2 for ImageNet.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes]``.
        """
        return RENASNetwork(
            self.nodes(architecture), head.classes_or(10), channels, cells, stem, dropout, head.in_channels
        )
