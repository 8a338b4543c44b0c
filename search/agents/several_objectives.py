"""What agents that see every objective, and not the score alone, have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.evaluation import Evaluation, Objective, Proposal, read_objectives
from search.spaces.base import SearchSpace


def objective_values(evaluation: Evaluation, names: Sequence[str], score_metric: str) -> list[float]:
    """An evaluation by several objectives, in their own units; NaN where one was not measured."""
    scores = {score_metric: evaluation.score}
    return [evaluation.metrics.get(name, scores.get(name, math.nan)) for name in names]


def violation_of(evaluation: Evaluation, objectives: Mapping[str, Objective], values: Sequence[float]) -> float:
    """By how much an evaluation breaks limits, an agent's own or the target's; without end where it failed."""
    if evaluation.status != "ok" or any(math.isnan(value) for value in values):
        return math.inf
    own = sum(each.violation(value) for each, value in zip(objectives.values(), values, strict=True))
    return max(own, evaluation.violation)


class SeesObjectives(Agent):
    """Is told every objective of an evaluation; with fewer than two the score is climbed.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        objectives: by name ``max``, ``min`` or an `Objective` with a limit; None for those of the target, whose limits
            count in any case.
        score_metric: the name of the objective that is the score itself; empty for the target's.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        objectives: dict[str, str | Objective] | None = None,
        score_metric: str = "",
    ):
        super().__init__(space, trials, seed)
        self.objectives, self.score_metric = read_objectives(objectives or {}), score_metric
        several = len(self.objectives) > 1
        self._directions = [each.direction for each in self.objectives.values()] if several else ["max"]
        self._forget()

    @abstractmethod
    def _forget(self) -> None:
        """Start with nothing told."""

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start with nothing told."""
        super().begin_task(budget, adapting)
        self._forget()

    def observe(
        self, proposals: Sequence[Sequence[Proposal]], evaluations: Sequence[Sequence[Evaluation]], rewards: Tensor
    ) -> None:
        """Learn from every objective; an evaluation that failed breaks limits without end."""
        if len(self.objectives) < 2:
            super().observe(proposals, evaluations, rewards)
            return
        archs = torch.tensor([[each.architecture for each in row] for row in proposals])
        values = [
            [objective_values(each, [*self.objectives], self.score_metric) for each in row] for row in evaluations
        ]
        missed = [
            [violation_of(each, self.objectives, found) for each, found in zip(row, rows, strict=True)]
            for row, rows in zip(evaluations, values, strict=True)
        ]
        found = torch.tensor(values, dtype=torch.float64)
        # Of what was not measured no value counts: its violation says so.
        known = torch.where(found.isnan().any(-1, keepdim=True), 0.0, found)
        self.take(archs, known, torch.tensor(missed, dtype=torch.float64))

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Learn from the score alone, where there are no other objectives.

        Raises:
            ValueError: there are.
        """
        if len(self.objectives) > 1:
            name = type(self).__name__
            raise ValueError(f"{name}: with objectives it learns from evaluations (observe), not from rewards")
        self.take(archs, rewards[..., None], torch.zeros_like(rewards))

    @abstractmethod
    def take(self, archs: Tensor, values: Tensor, violation: Tensor) -> None:
        """Learn from evaluations.

        Args:
            archs: int64 ``[trials, n, decisions]``.
            values: float64 ``[trials, n, objectives]``, in their own units.
            violation: float64 ``[trials, n]``, infinite where the values say nothing.
        """


class SeveralObjectives(SeesObjectives):
    """Keeps everything that was asked and told, with every objective; what is asked next is the method's own.

    The arguments are those of `SeesObjectives`.
    """

    def _forget(self) -> None:
        decisions, objectives = len(self.space.decisions), len(self._directions)
        # What was told, in order: int64 [trials, n, decisions], and float64 [trials, n, objectives] and [trials, n].
        self._archs = torch.zeros(self.trials, 0, decisions, dtype=torch.long)
        self._values = torch.zeros(self.trials, 0, objectives, dtype=torch.float64)
        self._violation = torch.zeros(self.trials, 0, dtype=torch.float64)
        # Numbers (`SearchSpace.code`) of all that was asked or told: int64 [trials, m].
        self._codes = torch.zeros(self.trials, 0, dtype=torch.long)

    def asked(self, archs: Tensor) -> Tensor:
        """Note what a trial asks for next: int64 ``[trials, decisions]``, which is given back."""
        self._codes = torch.cat([self._codes, self.space.code(archs)[:, None]], dim=1)
        return archs

    def is_new(self, archs: Tensor) -> Tensor:
        """Which architectures were neither asked nor told: int64 ``[trials, m, decisions]`` to bool ``[trials, m]``."""
        return (self.space.code(archs)[:, :, None] != self._codes[:, None]).all(-1)

    def first_new(self, archs: Tensor, worth: Tensor | None = None) -> Tensor:
        """Of some architectures the best new one, or the best of all where none is new; of equals the first.

        Args:
            archs: int64 ``[trials, m, decisions]``.
            worth: float64 ``[trials, m]``; None where all are worth the same.

        Returns:
            Int64 ``[trials, decisions]``.
        """
        worth = torch.zeros(archs.shape[:2], dtype=torch.float64) if worth is None else worth
        new = self.is_new(archs)
        best = torch.where(new | ~new.any(1, keepdim=True), worth, -torch.inf).argmax(1)
        return archs[torch.arange(self.trials), best]

    def take(self, archs: Tensor, values: Tensor, violation: Tensor) -> None:
        """Add to what was told."""
        self._archs = torch.cat([self._archs, archs], dim=1)
        self._values = torch.cat([self._values, values], dim=1)
        self._violation = torch.cat([self._violation, violation], dim=1)
        codes = self.space.code(archs)
        foreign = (codes[:, :, None] != self._codes[:, None]).all(-1).any(0)
        self._codes = torch.cat([self._codes, codes[:, foreign]], dim=1)

    def state_dict(self) -> dict[str, Any]:
        """Everything told and asked, which grows by one architecture an evaluation."""
        return super().state_dict() | {
            "archs": self._archs.clone(),
            "values": self._values.clone(),
            "violation": self._violation.clone(),
            "codes": self._codes.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._archs, self._values = state["archs"].clone(), state["values"].clone()
        self._violation, self._codes = state["violation"].clone(), state["codes"].clone()
