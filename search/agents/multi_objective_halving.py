"""Asynchronous successive halving towards the whole Pareto front (Schmucker et al., 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from search.agents.asha import ASHA
from search.agents.halving import Entry, Rung
from search.agents.several_objectives import objective_values, violation_of
from search.evaluation import Evaluation, Objective, read_objectives
from search.spaces.base import SearchSpace
from search.statistics.pareto import crowding_distance, pareto_front


class MultiObjectiveHalving(ASHA):
    """MO-ASHA ("Multi-objective Asynchronous Successive Halving", 2021) with NSGA-II's order.

    It is `ASHA`, but what goes up is decided by every objective: first what breaks limits least, then by fronts that do
    not dominate each other, on one front by the room around a point. The paper compares several orders of one front;
    this one is NSGA-II's. With fewer than two objectives it climbs the score.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        levels: of the fidelity, rising; the last one is that of the task itself.
        eta: of so many on a level one goes on to the next.
        fidelity: what the levels are of: one of what the task honours.
        inherit: go on from what the evaluation one level below has left, where the task honours ``parent``, instead of
            starting again.
        tries: random architectures drawn in search of one that the trial has not asked for (assumed).
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
        levels: Sequence[float] = (1, 3, 9),
        eta: float = 4.0,
        fidelity: str = "epochs",
        inherit: bool = True,
        tries: int = 4,
        objectives: dict[str, str | Objective] | None = None,
        score_metric: str = "",
    ):
        super().__init__(space, trials, seed, levels, eta, fidelity, inherit, tries)
        self.objectives, self.score_metric = read_objectives(objectives or {}), score_metric

    def worth(self, evaluation: Evaluation, reward: float) -> tuple[list[float], float]:
        """Every objective with its sign, higher is better; one that was not measured is as good as a failure."""
        if len(self.objectives) < 2:
            return super().worth(evaluation, reward)
        values = objective_values(evaluation, [*self.objectives], self.score_metric)
        violation = violation_of(evaluation, self.objectives, values)
        directions = [each.direction for each in self.objectives.values()]
        return [value if way == "max" else -value for value, way in zip(values, directions, strict=True)], violation

    def best(self, rung: Rung, count: int) -> list[Entry]:
        """The best by fronts and the room on them: one front after another is taken away, until there are so many."""
        left = [entry for entry in rung if entry.values is not None and entry.violation < math.inf]
        # Told by rewards alone an entry has one value, whatever the objectives.
        if len({len(entry.values or []) for entry in left}) != 1 or len(left[0].values or []) < 2:
            return super().best(rung, count)
        chosen: list[Entry] = []
        while left and len(chosen) < count:
            least = min(entry.violation for entry in left)
            rivals = [entry for entry in left if entry.violation == least]
            values = torch.tensor([entry.values for entry in rivals], dtype=torch.float64)
            places = pareto_front(values, ["max"] * values.shape[1]).nonzero()[:, 0]
            room = crowding_distance(values[places], torch.zeros_like(places))
            front = [rivals[k] for k in places.tolist()]
            chosen += [front[k] for k in room.argsort(descending=True, stable=True).tolist()]
            taken = {id(entry) for entry in front}
            left = [entry for entry in left if id(entry) not in taken]
        return chosen[:count]
