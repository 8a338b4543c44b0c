"""NSGA-II: evolution towards the whole Pareto front (Deb et al., 2002)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.agents.several_objectives import SeesObjectives
from search.evaluation import Objective
from search.spaces.base import SearchSpace
from search.statistics.pareto import crowding_distance, non_dominated_ranks


class NSGA2(SeesObjectives):
    """Non-dominated sorting genetic algorithm (Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm").

    It sees every objective, not only the score, which it climbs where there are fewer than two. The first
    ``population`` architectures are random. Each later one is a child: two parents, each the better of two members
    drawn at random, are crossed decision by decision, and each decision is then mutated with a probability of 1 /
    decisions. After as many children as members, the best ``population`` of both are the members: first those that
    break limits least, then those on earlier fronts, then those with more room around them (sec. III and VI-A). A child
    that was asked before is mutated until it is new; that is not in the paper, where evaluations are cheap.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        population: members, and children a generation. Deb et al. use 100 for 25,000 evaluations; 10 is assumed for
            the budgets here.
        crossover: probability that a child has two parents rather than one (0.9 in sec. V).
        tries: mutations of a child that was asked before, until it is new (assumed).
        objectives: by name ``max``, ``min`` or an `Objective` with a limit; None for those of the target, whose limits
            count in any case.
        score_metric: the name of the objective that is the score itself; empty for the target's.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        population: int = 10,
        crossover: float = 0.9,
        tries: int = 2,
        objectives: dict[str, str | Objective] | None = None,
        score_metric: str = "",
    ):
        if population < 2:
            raise ValueError(f"NSGA2: population is {population}, it must be at least 2")
        if not 0 <= crossover <= 1:
            raise ValueError(f"NSGA2: crossover is {crossover}, it must lie in [0, 1]")
        if tries < 0:
            raise ValueError(f"NSGA2: tries is {tries}, it must be at least 0")
        self.population, self.crossover, self.tries = population, crossover, tries
        super().__init__(space, trials, seed, objectives, score_metric)

    def _forget(self) -> None:
        decisions, objectives = len(self.space.decisions), len(self._directions)
        # Members first, the best of them first; then the children of this generation that were told.
        self._archs = torch.zeros(self.trials, 0, decisions, dtype=torch.long)
        self._values = torch.zeros(self.trials, 0, objectives, dtype=torch.float64)
        self._violation = torch.zeros(self.trials, 0, dtype=torch.float64)
        self._members = 0
        self._asked = torch.zeros(self.trials, 0, decisions, dtype=torch.long)

    # ---- asking ----------------------------------------------------------------------------------------------------

    def ask(self, n: int = 1) -> Tensor:
        """Random architectures until the first generation is told, then children; int64 ``[trials, n, decisions]``."""
        archs = self._children(n) if self._members else self.space.sample(self.rng, n)
        for _ in range(self.tries):
            mutated = self.space.mutate(archs, self.rng)
            archs = torch.where(self._was_asked(archs)[..., None], mutated, archs)
        self._asked = torch.cat([self._asked, archs], dim=1)
        return archs

    def _children(self, n: int) -> Tensor:
        """Of parents that won a tournament each."""
        # Members stand in the order of their worth: the lower place wins.
        parents = self.rng.integers(self._members, 2 * n, 2).min(-1).values
        archs = self._archs.gather(1, parents[..., None].expand(-1, -1, self._archs.shape[-1]))
        mother, father = archs[:, :n], archs[:, n:]
        crossed = self.rng.uniform(n, 1) < self.crossover
        from_father = (self.rng.uniform(n, mother.shape[-1]) < 0.5) & crossed
        mutated = self.rng.uniform(n, mother.shape[-1]) < 1 / mother.shape[-1]
        child = mother[..., :0]
        for t in range(mother.shape[-1]):
            allowed = self.space.valid_choices(child)
            gene = torch.where(from_father[..., t], father[..., t], mother[..., t])[..., None]
            other = allowed.scatter(-1, gene, False)
            # Drawn anew too where the choices before have ruled it out.
            renew = (mutated[..., t : t + 1] & other.any(-1, keepdim=True)) | ~allowed.gather(-1, gene)
            drawn = self.rng.categorical(torch.where(renew, other, allowed))[..., None]
            child = torch.cat([child, torch.where(renew, drawn, gene)], dim=-1)
        return child

    def _was_asked(self, archs: Tensor) -> Tensor:
        """Which architectures were asked or told before: int64 ``[trials, n, decisions]`` to bool ``[trials, n]``."""
        known = torch.cat([self._asked, self._archs], dim=1)
        return (archs[:, :, None] == known[:, None]).all(-1).any(-1)

    # ---- learning --------------------------------------------------------------------------------------------------

    def take(self, archs: Tensor, values: Tensor, violation: Tensor) -> None:
        """Add to the children; when there are as many as members, a generation is over."""
        self._archs = torch.cat([self._archs, archs], dim=1)
        self._values = torch.cat([self._values, values], dim=1)
        self._violation = torch.cat([self._violation, violation], dim=1)
        if self._archs.shape[1] - self._members >= self.population:
            self._select()

    def _select(self) -> None:
        """Keep the best, in the order of their worth."""
        ranks = non_dominated_ranks(self._values, self._directions, self._violation)
        order = (-crowding_distance(self._values, ranks)).argsort(dim=1, stable=True)
        order = order.gather(1, ranks.gather(1, order).argsort(dim=1, stable=True))[:, : self.population]
        self._archs = self._archs.gather(1, order[..., None].expand(-1, -1, self._archs.shape[-1]))
        self._values = self._values.gather(1, order[..., None].expand(-1, -1, self._values.shape[-1]))
        self._violation = self._violation.gather(1, order)
        self._members = order.shape[1]

    def state_dict(self) -> dict[str, Any]:
        """Members, children, and everything asked, which grows by one architecture an evaluation."""
        return super().state_dict() | {
            "archs": self._archs.clone(),
            "values": self._values.clone(),
            "violation": self._violation.clone(),
            "members": self._members,
            "asked": self._asked.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._archs, self._values = state["archs"].clone(), state["values"].clone()
        self._violation, self._asked = state["violation"].clone(), state["asked"].clone()
        self._members = state["members"]
