"""A relaxation whose weights depend on what was decided before: paths through a trellis.

Auto-DeepLab (Liu et al., CVPR 2019, sec. 3.2) is one: at every level of resolution the network may go down, stay or go
up, each with a probability of its own, and some moves are not there. The states of the trellis are the levels, its
steps the decisions, its branches the choices.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import Choices, Space
from lightning_modules.path_samplers.relaxation import MOST_LOOKED_AT, Relaxation, straight_through

Transitions = Sequence[Sequence[Sequence[int]] | None]
"""For each decision the state that each choice leads to from each state, -1 where the choice isn't there; None for a
decision that is one softmax whatever the state, and leaves it as it is."""


class TrellisRelaxation(Relaxation):
    """One softmax for every decision and every state that the decisions before it may have led to.

    Weights of such a decision are ``[states, choices]``: in each row the probabilities of the choices in that state.

    Args:
        space: whose architectures.
        transitions: how decisions change the state.
        start: the state before the first decision.

    Raises:
        ValueError: transitions are not those of the space's decisions, or a state that can be reached has no way on.
    """

    def __init__(self, space: Space, transitions: Transitions, start: int = 0):
        super().__init__(space)
        if len(transitions) != len(space.sizes):
            raise ValueError(f"transitions of {len(transitions)} decisions, the space has {len(space.sizes)}")
        states = max((len(each) for each in transitions if each is not None), default=start + 1)
        self.transitions = [None if each is None else torch.tensor(each) for each in transitions]
        self.start = start
        reached = {start}
        for t, (each, size) in enumerate(zip(self.transitions, space.sizes, strict=True)):
            if each is None:
                continue
            if each.shape != (states, size) or int(each.max()) >= states or int(each.min()) < -1:
                raise ValueError(
                    f"transitions of decision {t} must be {states} rows, one a state, of {size} states from -1 (none) "
                    f"to {states - 1}"
                )
            stuck = [state for state in sorted(reached) if bool((each[state] < 0).all())]
            if stuck:
                raise ValueError(
                    f"transitions of decision {t} have no choice in state {stuck[0]}, which can be reached"
                )
            reached = {int(state) for row in reached for state in each[row] if state >= 0}

    def shapes(self) -> list[torch.Size]:
        """``[states, choices]``, or ``[choices]`` where the state does not matter."""
        return [
            torch.Size((size,)) if each is None else each.shape
            for each, size in zip(self.transitions, self.space.sizes, strict=True)
        ]

    def _masked(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """With choices that are not there ruled out; rows without any are left as they are, as no path leads there."""
        return [
            each if moves is None else each.masked_fill((moves < 0) & (moves >= 0).any(1, keepdim=True), -torch.inf)
            for each, moves in zip(logits, self.transitions, strict=True)
        ]

    def _after(self, decision: int, state: int, choice: int) -> int:
        moves = self.transitions[decision]
        return state if moves is None else int(moves[state, choice])

    def likeliest_path(self, logits: Sequence[Tensor], weights: Sequence[Tensor]) -> Path:
        """Walks from the start; the weights of other states stay soft."""
        weights = list(weights)
        choices, state = [], self.start
        for t, each in enumerate(logits):
            row = each if self.transitions[t] is None else each[state]
            choice = row.detach().argmax()
            if self.transitions[t] is None:
                weights[t] = straight_through(weights[t], choice)
            else:
                walked = torch.arange(len(each)).unsqueeze(1) == state
                weights[t] = torch.where(walked, straight_through(weights[t][state], choice), weights[t])
            choices.append(int(choice))
            state = self._after(t, state, choices[-1])
        return Path(tuple(choices), tuple(weights))

    def sample(self, logits: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
        """One decision after the other, each in the state that those before it led to."""
        state, drawn = torch.full((count,), self.start), []
        for each, moves in zip(self._masked(logits), self.transitions, strict=True):
            probs = each.softmax(-1)
            rows = probs.expand(count, -1) if moves is None else probs[state]
            choice = torch.multinomial(rows, 1, generator=generator).squeeze(1)
            state = state if moves is None else moves[state, choice]
            drawn.append(choice)
        return torch.stack(drawn, dim=1)

    def by_likelihood(self, logits: Sequence[Tensor]) -> Iterator[Choices]:
        """By the product of the probabilities along their paths: Viterbi's algorithm, for ever more of the best."""
        log_probs = [each.detach().double().log_softmax(-1).tolist() for each in self._masked(logits)]
        transitions = [None if each is None else each.tolist() for each in self.transitions]
        found, wanted = 0, 16
        while True:
            best = likeliest_paths(log_probs, transitions, self.start, wanted)
            yield from (choices for _, choices in best[found:])
            if len(best) < wanted or len(best) >= MOST_LOOKED_AT:
                return
            found, wanted = len(best), min(8 * wanted, MOST_LOOKED_AT)


def likeliest_paths(
    log_probs: Sequence[Sequence], transitions: Transitions, start: int, count: int
) -> list[tuple[float, Choices]]:
    """The likeliest paths through a trellis and the logarithms of their probabilities, best first.

    Viterbi's algorithm with the ``count`` best paths into each state instead of one: the best paths to a state begin
    with best paths to the states before it.

    Args:
        log_probs: for each decision ``[states][choices]``, or ``[choices]`` where it has no transitions.
        transitions: as for `TrellisRelaxation`.
        start: the first state.
        count: how many are wanted; fewer where there are fewer.
    """
    best: dict[int, list[tuple[float, Choices]]] = {start: [(0.0, ())]}
    for moves, scores in zip(transitions, log_probs, strict=True):
        into: dict[int, list[tuple[float, Choices]]] = {}
        for state, paths in best.items():
            row = scores if moves is None else scores[state]
            for choice, score in enumerate(row):
                after = state if moves is None else moves[state][choice]
                if after >= 0 and score > -torch.inf:
                    into.setdefault(after, []).extend((total + score, (*path, choice)) for total, path in paths)
        best = {state: heapq.nsmallest(count, paths, key=_best_first) for state, paths in into.items()}
    return heapq.nsmallest(count, (path for paths in best.values() for path in paths), key=_best_first)


def _best_first(path: tuple[float, Choices]) -> tuple[float, Choices]:
    return -path[0], path[1]
