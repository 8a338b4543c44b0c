"""How metrics that trainings log order what was evaluated, beside the score."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from search.evaluation import Architecture
from search.results.attributes import FEWEST_ARCHITECTURES
from search.runs.journal import Record
from search.statistics.spearman import spearman_interval

_RANKED = 2_000_000
"""Values that are ranked for one interval; of many architectures fewer draws do (assumed: a second)."""


@dataclass(frozen=True)
class MetricCorrelation:
    """A metric beside the score, over the architectures that were evaluated.

    Attributes:
        name: the metric's.
        values: of each architecture, the mean of its evaluations.
        scores: likewise, in the same order.
        correlation: Spearman's.
        interval: 95%, over architectures.
    """

    name: str
    values: list[float]
    scores: list[float]
    correlation: float
    interval: tuple[float, float]


def correlate_metrics(records: Iterable[Record]) -> list[MetricCorrelation]:
    """Spearman's correlation of each metric with the score.

    Args:
        records: evaluations of one target, of which full ones count.

    Returns:
        In the order in which the metrics were logged, those that `FEWEST_ARCHITECTURES` architectures or more have and
        that differ between architectures.
    """
    found: dict[str, dict[Architecture, list[tuple[float, float]]]] = {}
    for record in records:
        evaluation = record.evaluation
        for name, value in evaluation.metrics.items() if record.full and evaluation.status == "ok" else ():
            if math.isfinite(value):
                found.setdefault(name, {}).setdefault(record.architecture, []).append((value, evaluation.score))
    correlations = []
    for name, by_architecture in found.items():
        if len(by_architecture) < FEWEST_ARCHITECTURES:
            continue
        means = [
            [sum(column) / len(column) for column in zip(*pairs, strict=True)] for pairs in by_architecture.values()
        ]
        values, scores = [mean[0] for mean in means], [mean[1] for mean in means]
        draws = max(200, min(2000, _RANKED // len(values)))
        correlation, low, high = spearman_interval(values, scores, draws)
        if not math.isnan(correlation):
            correlations.append(MetricCorrelation(name, values, scores, correlation, (low, high)))
    return correlations
