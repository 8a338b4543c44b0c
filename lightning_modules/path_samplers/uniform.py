"""Uniform single paths: SPOS and RandomNAS, which differ in how they choose at the end."""

from __future__ import annotations

from typing import Any

import torch

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import (
    Choices,
    Evaluate,
    PathSampler,
    Space,
    best_first,
    best_of,
    check_at_least,
    distinct,
)

_TRIES = 100


class UniformSampler(PathSampler):
    """Single path one-shot (SPOS, Guo et al., ECCV 2020): every choice that may follow equally often.

    Where every choice may follow every other, and no two architectures build the same network, that is every network
    equally often. Of NAS-Bench-101 it is not: a seventh of the paths is the cell without a vertex.

    Args:
        space: what can be sampled.
        population: of the evolution that chooses at the end (Landmark Regularization's code: 50).
        tournament: architectures of which the best becomes a parent (10).
        budget: architectures that the evolution evaluates (1,000).
    """

    def __init__(self, space: Space, population: int = 50, tournament: int = 10, budget: int = 1000):
        super().__init__(space)
        if not 1 <= tournament <= population <= budget:
            raise ValueError(
                f"tournament {tournament}, population {population} and budget {budget} must be at least 1, and in "
                "this order"
            )
        self.population, self.tournament, self.budget = population, tournament, budget

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"population": 4, "tournament": 2, "budget": 10}

    def path(self, seed: int, step: int, index: int = 0) -> Path:
        """A random architecture."""
        return Path(self.space.draw("path", seed, step, index))

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """Regularised evolution on the shared weights (Real et al., AAAI 2019): the oldest dies."""
        generator = torch.Generator().manual_seed(seed)
        opening = distinct(self.space, self.population, "opening", seed)
        worth = dict(zip(opening, evaluate(opening), strict=True))
        alive = list(opening)
        for _ in range(len(opening), self.budget):
            places = torch.randint(len(alive), (self.tournament,), generator=generator).tolist()
            parent = best_first({alive[place]: worth[alive[place]] for place in places})[0]
            child = self._mutant(parent, worth, generator)
            if child is None:
                break
            worth[child] = evaluate([child])[0]
            alive = [*alive[1:], child]
        return best_first(worth)[:count]

    def _mutant(self, parent: Choices, known: dict[Choices, float], generator: torch.Generator) -> Choices | None:
        """The parent with one decision changed, not evaluated yet, or else its nearest neighbour; None without either.

        Where few architectures belong to the space, as of a table's sample, hardly any is one decision away.
        """
        for _ in range(_TRIES):
            place = int(torch.randint(len(parent), (), generator=generator))
            choice = int(torch.randint(self.space.sizes[place], (), generator=generator))
            child = (*parent[:place], choice, *parent[place + 1 :])
            if child not in known and self.space.is_valid(torch.tensor(child)):
                return child
        near, there = self.space.neighbours(torch.tensor([parent]))
        return next((child for child in map(tuple, near[there].tolist()) if child not in known), None)


class RandomNASSampler(UniformSampler):
    """Random search with weight sharing (Li and Talwalkar, UAI 2019).

    Args:
        space: what can be sampled.
        candidates: random architectures of which the best are returned (1,000; "R-NAS" on NAS-Bench-201: 100).
    """

    def __init__(self, space: Space, candidates: int = 100):
        super().__init__(space)
        check_at_least(1, candidates=candidates)
        self.candidates = candidates

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"candidates": 10}

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """The best of many random architectures."""
        return best_of(distinct(self.space, self.candidates, "candidates", seed), evaluate)[:count]
