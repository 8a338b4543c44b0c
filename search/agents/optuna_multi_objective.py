"""Optuna's samplers for several objectives and for hard limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from search.agents.optuna_sampler import OptunaSampler
from search.agents.several_objectives import objective_values, violation_of
from search.evaluation import Evaluation, Objective, Proposal, read_objectives
from search.spaces.base import SearchSpace

CONSTRAINTS = "constraints"
"""The note on a trial under which Optuna's samplers look for what must be at most 0."""


class OptunaMultiObjective(OptunaSampler):
    """Any of Optuna's samplers that knows several objectives, told of all of them, and of hard limits as constraints.

    By default the multi-objective tree-structured Parzen estimator (Ozaki et al., JAIR 2022). ``GPSampler`` is a
    Gaussian process with expected hypervolume improvement where there are several objectives, and constrained expected
    improvement where there is one and a limit. A failed evaluation counts as the worst so far by every objective and as
    missing every limit. With fewer than two objectives the score is climbed, with the limits as constraints.

    Args:
        space: what can be asked.
        trials: how many independent searchers there are, which this agent advances one after another.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        sampler: name of a class in ``optuna.samplers``.
        options: the sampler's own arguments; Optuna's defaults otherwise.
        climb_score: have one objective, the score, whatever the target's others; their limits are constraints.
        objectives: by name ``max``, ``min`` or an `Objective` with a limit; None for those of the target.
        score_metric: the name of the objective that is the score itself; empty for the target's.

    Raises:
        ValueError: there is no such sampler or option, or the sampler cannot use categorical parameters.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        sampler: str = "TPESampler",
        options: dict[str, Any] | None = None,
        climb_score: bool = False,
        objectives: dict[str, str | Objective] | None = None,
        score_metric: str = "",
    ):
        self.climb_score = climb_score
        self.objectives, self.score_metric = read_objectives(objectives or {}), score_metric
        super().__init__(space, trials, seed, sampler, options)

    @property
    def _several(self) -> bool:
        return len(self.objectives) > 1 and not self.climb_score

    def _directions(self) -> list[str]:
        words = {"max": "MAXIMIZE", "min": "MINIMIZE"}
        return [words[each.direction] for each in self.objectives.values()] if self._several else super()._directions()

    def observe(
        self, proposals: Sequence[Sequence[Proposal]], evaluations: Sequence[Sequence[Evaluation]], rewards: Tensor
    ) -> None:
        """Tell of every objective, and by how much each limit is missed or kept."""
        if not self.objectives:
            super().observe(proposals, evaluations, rewards)
            return
        for trial, row in enumerate(proposals):
            for proposal, evaluation in zip(row, evaluations[trial], strict=True):
                values = objective_values(evaluation, [*self.objectives], self.score_metric)
                if math.isinf(violation_of(evaluation, self.objectives, values)):
                    self._finish(trial, proposal.architecture, *self._worst_of(trial))
                    continue
                found = zip(self.objectives.values(), values, strict=True)
                margins = [_excess(each, value) for each, value in found if each.limit is not None]
                self._finish(
                    trial,
                    proposal.architecture,
                    values if self._several else [evaluation.score],
                    {CONSTRAINTS: margins} if margins else {},
                )

    def _worst_of(self, trial: int) -> tuple[list[float] | None, dict[str, Any]]:
        """What stands in for a failure: of each value, and of each limit, the worst so far; None while there is none.

        A failed trial samplers would pass over, and ask for the same again.
        """
        told = [(values, notes) for _, values, notes in self._told[trial] if values is not None]
        if not told:
            return None, {}
        worst = [
            (min if word == "MAXIMIZE" else max)(column)
            for word, column in zip(self._directions(), zip(*(values for values, _ in told), strict=True), strict=True)
        ]
        margins = [max(1.0, *column) for column in zip(*(notes.get(CONSTRAINTS, []) for _, notes in told), strict=True)]
        return worst, {CONSTRAINTS: margins} if margins else {}


def _excess(objective: Objective, value: float) -> float:
    """By which share of itself a limit is missed; below 0 where it is kept."""
    assert objective.limit is not None
    excess = value - objective.limit if objective.direction == "min" else objective.limit - value
    return excess / (abs(objective.limit) or 1.0)
