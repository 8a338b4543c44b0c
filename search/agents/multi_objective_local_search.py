"""Pareto local search: from every architecture of the front to its neighbours (Paquete et al., 2004)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.agents.several_objectives import SeveralObjectives
from search.evaluation import Objective
from search.spaces.base import SearchSpace
from search.statistics.pareto import crowding_distance, dominates, oriented


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

    def ask(self, n: int = 1) -> Tensor:
        """Untried neighbours of the front, or random architectures: int64 ``[trials, n, decisions]``."""
        drawn = self.space.sample(self.rng, n * self.tries).split(self.tries, dim=1)
        picks = self.rng.uniform(n)
        front = self._front() if self._archs.shape[1] else None
        chosen = []
        for k in range(n):
            arch = self.first_new(drawn[k])
            if front is not None and self._codes.shape[1] >= self.initial:
                arch = self._neighbour(*front, picks[:, k : k + 1], arch)
            chosen.append(self.asked(arch))
        return torch.stack(chosen, dim=1)

    def _front(self) -> tuple[Tensor, Tensor]:
        """Places of what was told, those with most room first, and which places are on the front: ``[trials, n]``."""
        behind = dominates(self._values, self._directions, self._violation).any(1)
        values = oriented(self._values, self._directions)
        room = torch.where(behind, -torch.inf, crowding_distance(values, behind.long()))
        order = room.argsort(dim=1, descending=True, stable=True)
        return order, ~behind.gather(1, order)

    def _neighbour(self, order: Tensor, on_front: Tensor, pick: Tensor, otherwise: Tensor) -> Tensor:
        """An untried neighbour of the first on the front that has one.

        Args:
            order: as `_front` gives it.
            on_front: likewise.
            pick: float64 ``[trials, 1]`` in (0, 1), which of the untried ones.
            otherwise: int64 ``[trials, decisions]``, what to ask for where all neighbours of the front were tried.
        """
        chosen, rows = otherwise, torch.arange(self.trials)
        left = torch.ones(self.trials, dtype=torch.bool)
        for place in range(order.shape[1]):
            left = left & on_front[:, place]
            if not left.any():
                break
            neighbours, valid = self.space.neighbours(self._archs[rows, order[:, place]])
            untried = valid & self.is_new(neighbours) & left[:, None]
            found = untried.any(1)
            wanted = (pick * untried.sum(1, keepdim=True)).long() + 1
            index = (untried.cumsum(1) >= wanted).long().argmax(1)
            chosen = torch.where(found[:, None], neighbours[rows, index], chosen)
            left = left & ~found
        return chosen
