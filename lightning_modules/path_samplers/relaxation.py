"""How real numbers stand for the architectures of a space.

A method that learns by gradient has logits in place of an architecture. What they mean belongs to the space: by default
every decision has a softmax of its own; where a choice's weight depends on the decision before it, a space says so
(`lightning_modules.path_samplers.trellis`).
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import Choices, Space

MOST_LOOKED_AT = 100_000
"""Architectures that `Relaxation.decode` looks at before it gives up on finding enough valid ones."""


class Relaxation(ABC):
    """The logits of a space, the paths they stand for, and the architectures they favour.

    Args:
        space: whose architectures.
    """

    def __init__(self, space: Space):
        self.space = space

    @abstractmethod
    def shapes(self) -> list[torch.Size]:
        """Of the logits: one tensor a decision, its last dimension the decision's choices.

        Where a space's probabilities are not its decisions', as on the edges of a cell of which a block reads two, it
        has tensors of its own, in the last dimension of which probabilities add up to 1.
        """

    def path(
        self,
        logits: Sequence[Tensor],
        noise: Sequence[Tensor] | None = None,
        temperature: float = 1.0,
        hard: bool = False,
    ) -> Path:
        """The path that logits stand for; gradients pass through its weights.

        Args:
            logits: of `shapes`.
            noise: Gumbel noise of the same shapes; None for none.
            temperature: of the softmax; below 1 it comes nearer to a single choice.
            hard: run nothing but the likeliest choices (under the noise), with weights of 1 whose gradient is that of
                the softmax; the architecture may be one that the space rules out.
        """
        logits = self._masked(logits)
        if noise is not None:
            logits = [each.log_softmax(-1) + some for each, some in zip(logits, noise, strict=True)]
        weights = [(each / temperature).softmax(-1) for each in logits]
        return self.likeliest_path(logits, weights) if hard else Path(None, tuple(weights))

    def _masked(self, logits: Sequence[Tensor]) -> Sequence[Tensor]:
        """The logits with minus infinity for choices that aren't there; by default all are."""
        return logits

    def likeliest_path(self, logits: Sequence[Tensor], weights: Sequence[Tensor]) -> Path:
        """The path of the likeliest choices, with `straight_through` weights: what `path` gives where it is hard.

        Args:
            logits: with their noise.
            weights: the soft ones, of the same shapes.
        """
        raise NotImplementedError

    @abstractmethod
    def sample(self, logits: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
        """Architectures drawn by their probability: int64 ``[count, decisions]``; the space may rule some out."""

    @abstractmethod
    def by_likelihood(self, logits: Sequence[Tensor]) -> Iterable[Choices]:
        """All architectures, the most likely first; exact, not drawn, and one at a time; some may be ruled out."""

    def decode(self, logits: Sequence[Tensor], count: int) -> list[Choices]:
        """The likeliest architectures, best first.

        Returns:
            Valid ones, all different: as many as asked, or as there are among the 100,000 likeliest combinations.
        """
        found: list[Choices] = []
        for looked_at, choices in enumerate(self.by_likelihood(logits)):
            if len(found) == count or looked_at == MOST_LOOKED_AT:
                break
            if bool(self.space.is_valid(torch.tensor(choices))):
                found.append(choices)
        return found


class IndependentRelaxation(Relaxation):
    """One softmax a decision, whatever the others are."""

    def shapes(self) -> list[torch.Size]:
        """``[choices]`` each."""
        return [torch.Size((size,)) for size in self.space.sizes]

    def likeliest_path(self, logits: Sequence[Tensor], weights: Sequence[Tensor]) -> Path:
        """The largest of each decision's logits."""
        return Path(
            tuple(int(each.argmax()) for each in logits),
            tuple(straight_through(soft, each.argmax(0)) for soft, each in zip(weights, logits, strict=True)),
        )

    def sample(self, logits: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
        """One decision after the other."""
        drawn = [torch.multinomial(each.softmax(0), count, replacement=True, generator=generator) for each in logits]
        return torch.stack(drawn, dim=1)

    def by_likelihood(self, logits: Sequence[Tensor]) -> Iterator[Choices]:
        """By the product of their choices' probabilities.

        A combination is kept as the rank of its choice in each decision. Its successors raise one rank, at or after the
        last decision whose rank was raised, so each combination has one predecessor and enters the queue once.
        """
        log_probs = [each.detach().double().log_softmax(0).tolist() for each in logits]
        order = [sorted(range(len(each)), key=lambda choice, each=each: -each[choice]) for each in log_probs]  # type: ignore[misc]
        ranked = [[each[choice] for choice in ranks] for each, ranks in zip(log_probs, order, strict=True)]
        queue: list[tuple[float, Choices, int]] = [(-sum(each[0] for each in ranked), (0,) * len(ranked), 0)]
        while queue:
            cost, ranks, last = heapq.heappop(queue)
            yield tuple(choices[rank] for choices, rank in zip(order, ranks, strict=True))
            for t in range(last, len(ranks)):
                rank = ranks[t] + 1
                if rank < len(ranked[t]):
                    raised = (*ranks[:t], rank, *ranks[t + 1 :])
                    heapq.heappush(queue, (cost + ranked[t][rank - 1] - ranked[t][rank], raised, t))


def straight_through(soft: Tensor, choice: Tensor) -> Tensor:
    """One-hot weights of a choice whose gradient is that of the soft ones ``[choices]`` (GDAS, eq. 8)."""
    hard = torch.zeros_like(soft).scatter_(0, choice.view(1), 1.0)
    return hard - soft.detach() + soft
