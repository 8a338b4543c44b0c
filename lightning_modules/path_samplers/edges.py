"""A softmax for every edge of a cell, of which an architecture keeps two a node: the relaxation of DARTS and GDAS."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import Choices, Space
from lightning_modules.path_samplers.relaxation import IndependentRelaxation, Relaxation, straight_through


class EdgeRelaxation(Relaxation):
    """Logits of each edge over its operations and none, its last choice.

    A path has no choices but weights of every edge, for a node of a search adds up all edges that reach it. An
    architecture is two (node read, operation) terms for each node: the two of the largest softmax, for the softmaxes of
    edges are compared as they are. What pairs a node may read decides the rule. If it may read a node twice, that is
    GDAS' rule: the two largest of all terms but none. If it may not, it is DARTS': the two edges whose best operation
    but none is likeliest.

    Logits and weights come cell by cell, and in a cell node by node: of node ``i``, from 0, one tensor
    ``[operations + 1]`` for each of the ``inputs + i`` nodes before it. Choices come in the same order: of each node
    its pair, the operation on the pair's first node, and that on its second.

    Args:
        space: whose architectures.
        cells: that are searched.
        pairs: for each node, the pairs of nodes that it may read, the earlier first.
        inputs: nodes before the first.
        operations: of an edge, without none.
    """

    def __init__(
        self, space: Space, cells: int, pairs: Sequence[Sequence[tuple[int, int]]], inputs: int, operations: int
    ):
        super().__init__(space)
        self._operations = operations
        self._sources = [inputs + node for _ in range(cells) for node in range(len(pairs))]
        # Of every node, its architectures: three choices, and the places of their two terms in its flattened logits.
        self._choices: list[Tensor] = []
        self._terms: list[Tensor] = []
        for readable in itertools.chain.from_iterable(itertools.repeat(pairs, cells)):
            rows = [
                ((pair, one, other), (first * operations + one, second * operations + other))
                for pair, (first, second) in enumerate(readable)
                for one, other in itertools.product(range(operations), repeat=2)
                if first != second or one < other
            ]
            self._choices.append(torch.tensor([choices for choices, _ in rows]))
            self._terms.append(torch.tensor([terms for _, terms in rows]))

    def shapes(self) -> list[torch.Size]:
        """``[operations + 1]`` each, one for every edge."""
        return [torch.Size((self._operations + 1,))] * sum(self._sources)

    def likeliest_path(self, logits: Sequence[Tensor], weights: Sequence[Tensor]) -> Path:
        """The likeliest choice of every edge, and nothing else runs (GDAS, eq. 5 to 8)."""
        chosen = [each.argmax(0) for each in logits]
        hard = tuple(straight_through(soft, choice) for soft, choice in zip(weights, chosen, strict=True))
        return Path(None, hard, tuple((int(choice),) for choice in chosen))

    def _of_nodes(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """For each node the log of what its architectures weigh, the product of both terms' softmaxes."""
        terms = [each.detach().double().log_softmax(0)[: self._operations] for each in logits]
        found, begin = [], 0
        for sources, places in zip(self._sources, self._terms, strict=True):
            found.append(torch.cat(terms[begin : begin + sources])[places].sum(1))
            begin += sources
        return found

    def sample(self, logits: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
        """Each node alone, its two terms by the product of their softmaxes: int64 ``[count, decisions]``."""
        drawn = [
            choices[torch.multinomial(weight.softmax(0), count, replacement=True, generator=generator)]
            for choices, weight in zip(self._choices, self._of_nodes(logits), strict=True)
        ]
        return torch.cat(drawn, dim=1)

    def by_likelihood(self, logits: Sequence[Tensor]) -> Iterator[Choices]:
        """By the product over all nodes."""
        nodes = IndependentRelaxation(self.space)  # one softmax a node
        for places in nodes.by_likelihood(self._of_nodes(logits)):
            yield tuple(
                int(choice) for choices, place in zip(self._choices, places, strict=True) for choice in choices[place]
            )
