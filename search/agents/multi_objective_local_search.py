"""Pareto local search: from every architecture of the front to its neighbours (Paquete et al., 2004)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.agents.several_objectives import SeveralObjectives
from search.evaluation import Objective
from search.spaces.base import SearchSpace
from search.statistics.pareto import crowding_distance, non_dominated_ranks


class MultiObjectiveLocalSearch(SeveralObjectives):
    """Local search for several objectives at once ("Pareto Local Optimum Sets in the Biobjective TSP", 2004).

    The first ``initial`` architectures are random. Then, one at a time, a random untried neighbour (one decision
    changed) of an architecture on the front of all that was told is asked for: of those that have untried neighbours,
    the one with most room around it, so that ends and gaps of the front come first. In the paper the whole
    neighbourhood of a random one is evaluated before the front is looked at again. When all neighbours of the front
    have been tried, random architectures are asked for until the front changes.

    Where limits are broken, the front is that of what breaks them least.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        initial: random architectures before the first neighbour (assumed).
        tries: random architectures drawn in search of one that was not evaluated before (assumed).
        objectives: by name ``max``, ``min`` or an `Objective` with a limit; None for those of the target, whose limits
            count in any case.
        score_metric: the name of the objective that is the score itself; empty for the target's.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        initial: int = 10,
        tries: int = 10,
        objectives: dict[str, str | Objective] | None = None,
        score_metric: str = "",
    ):
        for name, value in {"initial": initial, "tries": tries}.items():
            if value < 1:
                raise ValueError(f"MultiObjectiveLocalSearch: {name} is {value}, it must be at least 1")
        self.initial, self.tries = initial, tries
        super().__init__(space, trials, seed, objectives, score_metric)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Neighbours after a few evaluations."""
        return {"initial": 3}

    def ask_one(self) -> Tensor:
        """An untried neighbour of the front, or a random architecture."""
        random = self.new_at_random(self.tries)
        draw = self.rng.uniform(1)
        if self._codes.shape[1] < self.initial or not self._archs.shape[1]:
            return random
        ranks = non_dominated_ranks(self._values, self._directions, self._violation)
        worth = torch.where(ranks == 0, crowding_distance(self._values, ranks), -torch.inf)
        order = worth.argsort(dim=1, descending=True, stable=True)
        chosen, rows = random, torch.arange(self.trials)
        left = torch.ones(self.trials, dtype=torch.bool)
        for place in range(order.shape[1]):
            member = order[:, place]
            left = left & (ranks[rows, member] == 0)
            if not left.any():
                break
            neighbours, valid = self.space.neighbours(self._archs[rows, member])
            untried = valid & self.is_new(neighbours) & left[:, None]
            found = untried.any(1)
            # The k-th untried one, with k from the trial's own draw.
            count = untried.sum(1, keepdim=True)
            wanted = (draw * count).long() + 1
            index = (untried.cumsum(1) >= wanted).long().argmax(1)
            chosen = torch.where(found[:, None], neighbours[rows, index], chosen)
            left = left & ~found
        return chosen
