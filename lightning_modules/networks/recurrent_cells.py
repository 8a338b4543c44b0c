"""The recurrent cell of DARTS (Liu, Simonyan and Yang, ICLR 2019, sec. 3.2): highway steps from node to node.

A cell reads an input and its own last state. Its first node mixes both; each of the others reads one node before it and
goes a gated step away from that: ``s = s_read + sigmoid(c) * (activation(h) - s_read)`` with ``(c, h) = W s_read``. The
new state is the mean of the nodes behind the first.

The matrix of a node is the same whatever it reads and whichever activation it has (DARTS' public code), so a supernet
has no more weights than one architecture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.networks.supernet import PathModule, Selection

NODES = 8
"""Nodes behind the first, in the paper."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
"""Activation name to its function."""
ACTIVATION_NAMES = tuple(ACTIVATIONS)
_FUNCTIONS = tuple(ACTIVATIONS.values())
_SPREAD, _PUBLISHED_HIDDEN = 0.04, 850
"""Weights begin uniformly between this and its negative in a cell of so many features (DARTS' public code)."""


class RecurrentNode(NamedTuple):
    """What a node computes.

    Attributes:
        source: the node that it reads; 0 is the cell's first.
        activation: index of `ACTIVATION_NAMES`.
    """

    source: int
    activation: int


def recurrent_nodes(choices: Sequence[int]) -> list[RecurrentNode]:
    """The nodes of an architecture, whose choices are for each node the one it reads and its activation."""
    return [RecurrentNode(*choices[k : k + 2]) for k in range(0, len(choices), 2)]


class Masks(NamedTuple):
    """What is dropped in one pass over a sequence, the same at every step (variational dropout).

    Attributes:
        inputs: factors of the input, ``[batch, inputs]``.
        hidden: factors of every state that a matrix reads, ``[batch, hidden]``.
    """

    inputs: Tensor
    hidden: Tensor


class _Weights(nn.Module):
    """The matrices of a cell, without a bias.

    Args:
        inputs: features of an input.
        hidden: features of a state.
        nodes: behind the first.
    """

    def __init__(self, inputs: int, hidden: int, nodes: int):
        super().__init__()
        widths = [inputs + hidden, *[hidden] * nodes]
        self.matrices = nn.ModuleList(nn.Linear(width, 2 * hidden, bias=False) for width in widths)
        # A narrow cell adds up fewer products: with the published spread its nodes would hardly say anything.
        spread = _SPREAD * math.sqrt(_PUBLISHED_HIDDEN / hidden)
        for matrix in self.matrices:
            nn.init.uniform_(matrix.weight, -spread, spread)  # type: ignore[arg-type]

    def first(self, x: Tensor, state: Tensor, masks: Masks | None) -> Tensor:
        """The first node: ``[batch, hidden]``."""
        read = [x, state] if masks is None else [x * masks.inputs, state * masks.hidden]
        gate, proposal = self.matrices[0](torch.cat(read, 1)).chunk(2, 1)
        return state + gate.sigmoid() * (proposal.tanh() - state)

    def gates(self, node: int, state: Tensor, masks: Masks | None) -> tuple[Tensor, Tensor]:
        """Of a node, from 1, that reads a state: how far it goes, from 0 to 1, and where to before its activation."""
        gate, proposal = self.matrices[node](state if masks is None else state * masks.hidden).chunk(2, 1)
        return gate.sigmoid(), proposal


class RecurrentCell(_Weights):
    """A cell of one architecture.

    Args:
        nodes: what each node behind the first computes.
        inputs: features of an input.
        hidden: features of a state.
    """

    def __init__(self, nodes: Sequence[RecurrentNode], inputs: int, hidden: int):
        super().__init__(inputs, hidden, len(nodes))
        self._nodes = list(nodes)

    def forward(self, x: Tensor, state: Tensor, masks: Masks | None = None) -> Tensor:
        """Input ``[batch, inputs]`` and last state ``[batch, hidden]`` to the next state."""
        states = [self.first(x, state, masks)]
        for number, (source, activation) in enumerate(self._nodes, start=1):
            gate, proposal = self.gates(number, states[source], masks)
            states.append(states[source] + gate * (_FUNCTIONS[activation](proposal) - states[source]))
        return _mean(states[1:])


class SuperRecurrentCell(PathModule):
    """A cell of all architectures.

    With weights beside the choices, what a node computes is multiplied by those of both of its choices. Without choices
    it is the sum over all nodes that it can read and all activations, each by the product of its two weights (DARTS has
    one weight for both together).

    Args:
        selection: of its supernet.
        nodes: behind the first.
        inputs: features of an input.
        hidden: features of a state.
    """

    def __init__(self, selection: Selection, nodes: int, inputs: int, hidden: int):
        super().__init__(selection)
        self.weights = _Weights(inputs, hidden, nodes)

    def forward(self, x: Tensor, state: Tensor, masks: Masks | None = None) -> Tensor:
        """Input ``[batch, inputs]`` and last state ``[batch, hidden]`` to the next state."""
        path, states = self.selection.path, [self.weights.first(x, state, masks)]
        for number in range(1, len(self.weights.matrices)):
            own = None if path.weights is None else path.weights[2 * number - 2 : 2 * number]
            choices = None if path.choices is None else path.choices[2 * number - 2 : 2 * number]
            terms = [
                term if weight is None else term * weight
                for term, weight in self._terms(number, states, choices, own, masks)
            ]
            states.append(sum(terms[1:], terms[0]))
        return _mean(states[1:])

    def _terms(
        self,
        number: int,
        states: Sequence[Tensor],
        choices: Sequence[int] | None,
        weights: Sequence[Tensor] | None,
        masks: Masks | None,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """What a node adds up, and by which weight."""
        sources = range(number) if choices is None else choices[:1]
        activations = range(len(_FUNCTIONS)) if choices is None else choices[1:]
        for source in sources:
            gate, proposal = self.weights.gates(number, states[source], masks)
            for activation in activations:
                term = states[source] + gate * (_FUNCTIONS[activation](proposal) - states[source])
                yield term, None if weights is None else weights[0][source] * weights[1][activation]

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """All of its matrices, which every architecture has."""
        return self.weights.state_dict()


class TanhCell(nn.Module):
    """A plain recurrent cell, ``tanh(W (x, state))``: a baseline of one matrix in the place of nine.

    Args:
        inputs: features of an input.
        hidden: features of a state.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.matrix = nn.Linear(inputs + hidden, hidden)

    def forward(self, x: Tensor, state: Tensor, masks: Masks | None = None) -> Tensor:
        """Input ``[batch, inputs]`` and last state ``[batch, hidden]`` to the next state."""
        read = [x, state] if masks is None else [x * masks.inputs, state * masks.hidden]
        return self.matrix(torch.cat(read, 1)).tanh()


def _mean(states: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(states)).mean(0)
