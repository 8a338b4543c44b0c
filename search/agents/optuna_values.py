"""What a study of Optuna's is told of an evaluation: its values, and by how much limits are missed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.agents.several_objectives import objective_values, violation_of
from search.evaluation import Evaluation, Objective

CONSTRAINTS = "constraints"
"""The note on a trial under which samplers look for what must be at most 0 (since Optuna 5 all of them do)."""

Told = tuple[list[float] | None, dict[str, Any]]
"""Values in the study's directions, None of a failure; and notes."""


@dataclass(frozen=True)
class StudyValues:
    """Reads evaluations for a study.

    Attributes:
        objectives: by name, whose limits are constraints.
        score_metric: the name of the objective that is the score itself.
        several: whether the study has all of them as its objectives; otherwise the score.
    """

    objectives: Mapping[str, Objective]
    score_metric: str
    several: bool

    @property
    def directions(self) -> list[str]:
        """Of the study's values, in Optuna's words."""
        if not self._all:
            return ["MAXIMIZE"]
        return ["MAXIMIZE" if each.direction == "max" else "MINIMIZE" for each in self.objectives.values()]

    @property
    def _all(self) -> bool:
        return self.several and len(self.objectives) > 1

    def of(self, evaluation: Evaluation, known: Sequence[tuple[list[float], dict[str, Any]]]) -> Told:
        """What to tell of an evaluation.

        Args:
            evaluation: what an architecture gave.
            known: what was told of others: of a failure the worst of that is told, if there is any.
        """
        values = objective_values(evaluation, [*self.objectives], self.score_metric)
        if math.isinf(violation_of(evaluation, self.objectives, values)):
            return self._worst(known)
        found = zip(self.objectives.values(), values, strict=True)
        margins = [each.excess(value) for each, value in found if each.limit is not None]
        return (values if self._all else [evaluation.score]), {CONSTRAINTS: margins} if margins else {}

    def _worst(self, known: Sequence[tuple[list[float], dict[str, Any]]]) -> Told:
        if not known:
            return None, {}
        columns = zip(*(values for values, _ in known), strict=True)
        worst = [
            min(column) if word == "MAXIMIZE" else max(column)
            for word, column in zip(self.directions, columns, strict=True)
        ]
        margins = [max(1.0, *each) for each in zip(*(notes.get(CONSTRAINTS, []) for _, notes in known), strict=True)]
        return worst, {CONSTRAINTS: margins} if margins else {}
