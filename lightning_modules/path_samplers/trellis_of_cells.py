"""Auto-DeepLab's relaxation: moves on a trellis of resolutions, and operations on every edge of a cell.

A block of a cell chooses two of its edges and an operation on each. What has a softmax is not such a decision but an
edge: its operations, over all of which, ``zero`` among them, the weights add up to 1 (Auto-DeepLab, eq. 1 to 3). So
there is one tensor for each move, ``[levels, moves]``, and one for each block, ``[edges, operations]``.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_modules.networks.auto_deeplab import TRANSITIONS
from lightning_modules.networks.auto_deeplab_cells import INPUTS
from lightning_modules.networks.auto_deeplab_operations import OPERATION_NAMES, ZERO
from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import Choices, Space
from lightning_modules.path_samplers.relaxation import MOST_LOOKED_AT, Relaxation, straight_through
from lightning_modules.path_samplers.trellis import likeliest_paths

Scored = tuple[float, Choices]
"""A logarithm of a probability, and what has it."""


class TrellisOfCells(Relaxation):
    """Logits of moves for every level, and of operations for every edge of a cell.

    The likeliest architecture is the likeliest path (Viterbi's algorithm) of cells whose blocks read their two
    strongest edges, with the strongest operation besides ``zero`` on each (Auto-DeepLab, sec. 4.3). An architecture's
    likelihood is the product over its moves and over the operations on the edges that its blocks read; one that has
    ``zero``, or a block that reads a state twice, is never found.

    Args:
        space: whose architectures: moves, then four decisions a block.
        layers: how many moves.
        blocks: of a cell.
    """

    def __init__(self, space: Space, layers: int, blocks: int):
        super().__init__(space)
        self.layers, self.blocks = layers, blocks
        self._absent = torch.tensor(TRANSITIONS) < 0

    def shapes(self) -> list[torch.Size]:
        """``[levels, moves]`` for each move, then ``[edges, operations]`` for each block."""
        cells = [torch.Size((block + INPUTS, len(OPERATION_NAMES))) for block in range(self.blocks)]
        return [self._absent.shape] * self.layers + cells

    def _masked(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """With moves that are not there ruled out."""
        moves = [each.masked_fill(self._absent, -torch.inf) for each in logits[: self.layers]]
        return [*moves, *logits[self.layers :]]

    def path(
        self,
        logits: Sequence[Tensor],
        noise: Sequence[Tensor] | None = None,
        temperature: float = 1.0,
        hard: bool = False,
    ) -> Path:
        """As for every relaxation; edges are compared by logarithms of probabilities."""
        return super().path([each.log_softmax(-1) for each in self._masked(logits)], noise, temperature, hard)

    def likeliest_path(self, logits: Sequence[Tensor], weights: Sequence[Tensor]) -> Path:
        """Walks from the start, move by move; weights of levels and edges that are not taken stay soft."""
        weights, choices, level = list(weights), [], 0
        for t, each in enumerate(logits[: self.layers]):
            move = each[level].detach().argmax()
            weights[t] = _one_row_hard(weights[t], level, move)
            choices.append(int(move))
            level = TRANSITIONS[level][choices[-1]]
        for t, each in enumerate(logits[self.layers :], start=self.layers):
            (edges,), (operations,) = _strongest(each.detach().unsqueeze(0))
            for edge, operation in zip(edges.tolist(), operations, strict=True):
                weights[t] = _one_row_hard(weights[t], edge, operation)
            choices += [*edges.tolist(), *operations.tolist()]
        return Path(tuple(choices), tuple(weights))

    def sample(self, logits: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
        """What is likeliest under Gumbel noise: moves then come by their probability."""
        logits = self._masked([each.detach() for each in logits])
        level, drawn = torch.zeros(count, dtype=torch.long), list[Tensor]()
        table = torch.tensor(TRANSITIONS)
        for each in logits[: self.layers]:
            move = torch.multinomial(each.softmax(-1)[level], 1, generator=generator).squeeze(1)
            level = table[level, move]
            drawn.append(move.unsqueeze(1))
        for each in logits[self.layers :]:
            uniform = torch.rand(count, *each.shape, generator=generator).clamp(1e-20, 1 - 1e-7)
            drawn += _strongest(each.log_softmax(-1) - (-uniform.log()).log())
        return torch.cat(drawn, dim=1)

    def by_likelihood(self, logits: Sequence[Tensor]) -> Iterator[Choices]:
        """By the product of their probabilities: paths and blocks each in their order, put together best first."""
        log_probs = [each.detach().double().log_softmax(-1) for each in self._masked(logits)]
        paths = _Paths([each.tolist() for each in log_probs[: self.layers]])
        parts: list[_Paths | list[Scored]] = [paths, *(_ways(each) for each in log_probs[self.layers :])]
        first = (0,) * len(parts)
        queue = [(-sum(part[0][0] for part in parts), first, 0)]
        while queue:
            cost, ranks, last = heapq.heappop(queue)
            yield tuple(itertools.chain.from_iterable(part[rank][1] for part, rank in zip(parts, ranks, strict=True)))
            for t in range(last, len(parts)):  # each combination is come to in one way only: see IndependentRelaxation
                part, rank = parts[t], ranks[t] + 1
                if isinstance(part, _Paths):
                    part.reach(rank)
                if rank < len(part):
                    raised = (*ranks[:t], rank, *ranks[t + 1 :])
                    heapq.heappush(queue, (cost + part[rank - 1][0] - part[rank][0], raised, t))


class _Paths:
    """The paths through the trellis, the likeliest first, as many as are asked for."""

    def __init__(self, log_probs: list[list[list[float]]]):
        self._log_probs = log_probs
        self._found: list[Scored] = []
        self._wanted = 0
        self.reach(0)

    def reach(self, rank: int) -> None:
        """Look for paths up to a rank, from 0, if they have not been found yet and there are so many."""
        while rank >= len(self._found) == self._wanted < MOST_LOOKED_AT:
            self._wanted = min(max(16, 8 * self._wanted), MOST_LOOKED_AT)
            self._found = likeliest_paths(self._log_probs, [TRANSITIONS] * len(self._log_probs), 0, self._wanted)

    def __len__(self) -> int:
        """How many have been found."""
        return len(self._found)

    def __getitem__(self, rank: int) -> Scored:
        """The path of a rank that has been reached."""
        return self._found[rank]


def _ways(log_probs: Tensor) -> list[Scored]:
    """What a block may be, the likeliest first: two different edges, and an operation besides ``zero`` on each."""
    table = log_probs.tolist()
    operations = [k for k in range(len(OPERATION_NAMES)) if k != ZERO]
    ways = [
        (table[a][one] + table[b][other], (a, b, one, other))
        for a, b in itertools.combinations(range(len(table)), 2)
        for one, other in itertools.product(operations, repeat=2)
    ]
    return sorted(ways, key=lambda way: (-way[0], way[1]))


def _strongest(logits: Tensor) -> list[Tensor]:
    """The two strongest edges of a block, in order, and the strongest operation besides ``zero`` on each.

    How strong an edge is, its strongest operation says. Logits ``[n, edges, operations]`` must be logarithms of
    probabilities, up to a noise; gives two int64 ``[n, 2]``.
    """
    kept = logits.clone()
    kept[..., ZERO] = -torch.inf
    strength, operations = kept.max(-1)
    edges = strength.topk(2, dim=-1).indices.sort(dim=-1).values
    return [edges, operations.gather(-1, edges)]


def _one_row_hard(weights: Tensor, row: int, choice: Tensor) -> Tensor:
    """Weights ``[rows, choices]`` with one row that is one-hot, with the gradient of the soft one."""
    taken = (torch.arange(len(weights)) == row).unsqueeze(1)
    return torch.where(taken, straight_through(weights[row], choice), weights)
