"""Regularized evolution: a queue of architectures from which the oldest, not the worst, is removed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.spaces.base import SearchSpace


class RegularizedEvolution(Agent):
    """Aging evolution (Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019).

    The first ``population`` architectures are random. Each later one is a mutation, in one decision, of the best of a
    tournament. What is told joins the end of the queue, and the queue keeps its last ``population`` members, so that a
    lucky measurement does not stay for ever. The architectures of one batch are all bred from the same queue.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        population: length of the queue. 10 is NAS-Bench-201's setting (its script ``regularized_ea.py``); Real et al.
            use 100 for 20,000 evaluations.
        tournament: how many members are drawn, with replacement, to choose a parent among. 3 is NAS-Bench-201's
            setting; Real et al. use 25 of 100.
    """

    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0, population: int = 10, tournament: int = 3):
        super().__init__(space, trials, seed)
        for name, value in (("population", population), ("tournament", tournament)):
            if value < 1:
                raise ValueError(f"RegularizedEvolution: {name} is {value}, it must be at least 1")
        self.population, self.tournament = population, tournament
        self._forget()

    def _forget(self) -> None:
        self._members = torch.zeros(self.trials, 0, len(self.space.decisions), dtype=torch.long)
        self._fitness = torch.zeros(self.trials, 0, dtype=torch.float64)
        self._asked = 0

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start from an empty queue: fitness on another task says nothing here."""
        super().begin_task(budget, adapting)
        self._forget()

    def ask(self, n: int = 1) -> Tensor:
        """Random architectures until the queue can be full, then children; int64 ``[trials, n, decisions]``."""
        members = self._members.shape[1]
        random = n if members == 0 else min(n, max(0, self.population - max(self._asked, members)))
        asked = [self.space.sample(self.rng, random)]
        if random < n:
            drawn = self.rng.integers(members, n - random, self.tournament)
            fitness = self._fitness[:, None].expand(-1, n - random, -1).gather(-1, drawn)
            winner = drawn.gather(-1, fitness.argmax(-1, keepdim=True))
            parents = self._members.gather(1, winner.expand(-1, -1, self._members.shape[-1]))
            asked.append(self.space.mutate(parents, self.rng))
        self._asked += n
        return torch.cat(asked, dim=1)

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Append to the queue; the oldest members beyond its length are removed."""
        self._members = torch.cat([self._members, archs], dim=1)[:, -self.population :]
        self._fitness = torch.cat([self._fitness, rewards], dim=1)[:, -self.population :]

    def state_dict(self) -> dict[str, Any]:
        """The queue, oldest member first, and how many architectures were asked."""
        queue = {"members": self._members.clone(), "fitness": self._fitness.clone(), "asked": self._asked}
        return super().state_dict() | queue

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._members, self._fitness = state["members"].clone(), state["fitness"].clone()
        self._asked = state["asked"]
