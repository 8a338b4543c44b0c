"""The recurrent cells of DARTS (Liu, Simonyan and Yang, ICLR 2019, sec. 3.2), which GDAS searches too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.language_model import Dropout, LanguageModel
from lightning_modules.networks.recurrent_cells import (
    ACTIVATION_NAMES,
    NODES,
    RecurrentCell,
    SuperRecurrentCell,
    TanhCell,
    recurrent_nodes,
)
from lightning_modules.networks.supernet import Selection, Supernet
from search.errors import nearest
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head

PUBLISHED: dict[str, str] = {
    "DARTS_V1": "relu~0,relu~1,tanh~2,relu~3,relu~4,identity~1,relu~5,relu~1",
    "DARTS_V2": "sigmoid~0,relu~1,relu~1,identity~1,tanh~2,sigmoid~5,tanh~3,relu~5",
}
"""Published cells by name (DARTS' public code)."""
CELLS = ("searched", "tanh")
_PENN = 10_000
"""Words of the Penn Treebank's vocabulary."""


class RecurrentCells(SearchSpace):
    """A recurrent cell in a language model: each node reads one before it, by one of four activations.

    With eight nodes there are ``8! * 4^8``, about 2.6 billion architectures. None of DARTS' search, by which a node can
    read nothing of an edge, is left out of the choices, as it is out of every cell that is found.

    The canonical string is the published genotype, ``relu~0,tanh~1,...``: of each node its activation and the node that
    it reads; node 0 mixes the input and the last state.

    Args:
        nodes: behind the first.

    Raises:
        ValueError: there is none.
    """

    name = "recurrent"
    classifies = False
    reads_text = True

    def __init__(self, nodes: int = NODES):
        if nodes < 1:
            raise ValueError(f"{self.name}: nodes is {nodes}, at least 1 is needed")
        self.nodes = nodes
        self.decisions = tuple(
            decision
            for node in range(1, nodes + 1)
            for decision in (
                Decision(f"node {node} reads", tuple(map(str, range(node)))),
                Decision(f"node {node} activation", ACTIVATION_NAMES),
            )
        )

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Three nodes."""
        return {"nodes": 3}

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"hidden": 8}

    def example_input(self, head: Head = OWN_HEAD) -> Tensor:
        """Four sequences of five words: int64 ``[4, 5]``."""
        return torch.arange(20).view(4, 5) % head.classes_or(_PENN)

    def genotype(self, architecture: Architecture) -> list[tuple[str, int]]:
        """The cell as DARTS publishes it, (activation, node read) of each node; `from_genotype` reads it back."""
        nodes = recurrent_nodes(self.check(architecture))
        return [(ACTIVATION_NAMES[node.activation], node.source) for node in nodes]

    def from_genotype(self, genotype: Iterable[tuple[str, int]]) -> Architecture:
        """The architecture of a published genotype.

        Args:
            genotype: (activation, node read) of each node.

        Raises:
            ValueError: it does not belong to this space; says which part is wrong.
        """
        choices: list[int] = []
        for node, (name, source) in enumerate(genotype, start=1):
            if name not in ACTIVATION_NAMES:
                allowed = f"{', '.join(ACTIVATION_NAMES)}{nearest(name, ACTIVATION_NAMES, '')}"
                raise ValueError(f"{self.name}: node {node} has the activation '{name}', allowed: {allowed}")
            choices += [source, ACTIVATION_NAMES.index(name)]
        return self.check(choices)

    def format(self, architecture: Architecture) -> str:
        """The genotype as text; `parse` reads it back."""
        return ",".join(f"{name}~{source}" for name, source in self.genotype(architecture))

    def parse(self, text: str) -> Architecture:
        """The architecture of a genotype's text.

        Raises:
            ValueError: the string is not one of this space; says which part is wrong.
        """
        genotype = []
        for term in text.split(","):
            name, _, source = term.rpartition("~")
            if not re.fullmatch(r"[0-9]{1,3}", source):
                raise ValueError(f"{self.name}: '{term}' of '{text}' must be an activation, '~' and a node's number")
            genotype.append((name, int(source)))
        return self.from_genotype(genotype)

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The cell's graph: an arrow for each node, from the one that it reads."""
        genotype = self.genotype(architecture)
        mixed = [Edge("input", "0", "tanh"), Edge("last state", "0", "tanh")]
        return [*mixed, *(Edge(str(source), str(node), name) for node, (name, source) in enumerate(genotype, start=1))]

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        hidden: int = 850,
        dropout: dict[str, float] | None = None,
        cell: str = "searched",
    ) -> LanguageModel:
        """The language model of an architecture, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: its classes are the words of the vocabulary, 10,000 by default.
            hidden: features of a state, and of an embedded word.
            dropout: arguments of `lightning_modules.networks.language_model.Dropout`; None for none.
            cell: ``searched``, or ``tanh``, a plain recurrent network of as many weights, whatever the architecture: a
                baseline.

        Returns:
            A module from words, int64 ``[batch, time]``, to logits of the next ``[batch, time, words]``.

        Raises:
            ValueError: not an architecture of this space, or a number is out of range.
        """
        nodes = recurrent_nodes(self.check(architecture))
        if cell not in CELLS:
            raise ValueError(f"cell is '{cell}', allowed: {', '.join(CELLS)}")
        words, drop = head.classes_or(_PENN), Dropout(**(dropout or {}))
        if cell == "searched":
            return LanguageModel(lambda inputs, states: RecurrentCell(nodes, inputs, states), words, hidden, drop)
        return LanguageModel(TanhCell, words, self.tanh_hidden(words, hidden), drop)

    def tanh_hidden(self, words: int, hidden: int) -> int:
        """Features of a plain recurrent network with as many weights as a language model of this space.

        Args:
            words: of the vocabulary.
            hidden: features of the other one.
        """
        budget = words * hidden + (2 * self.nodes + 4) * hidden**2
        width = hidden
        while words * (width + 1) + 2 * (width + 1) ** 2 + width + 1 <= budget:
            width += 1
        return width

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        hidden: int = 850,
        dropout: dict[str, float] | None = None,
    ) -> Supernet:
        """The language model of all architectures, as large as that of one; arguments as for `build`.

        Args:
            norm: unused: nothing is normalised (DARTS' search normalises every node, its final networks do not).
            head: as for `build`.
            hidden: as for `build`.
            dropout: as for `build`.
        """

        def build(selection: Selection) -> nn.Module:
            return LanguageModel(
                lambda inputs, states: SuperRecurrentCell(selection, self.nodes, inputs, states),
                head.classes_or(_PENN),
                hidden,
                Dropout(**(dropout or {})),
            )

        return Supernet(build)
