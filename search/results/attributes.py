"""The rankings that cost nothing: how well attributes order what was evaluated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from search.attributes.base import Attribute
from search.evaluation import Architecture
from search.runs.journal import Record
from search.statistics.rank_correlation import kendall_tau

FEWEST_ARCHITECTURES = 10
"""Below it a rank correlation says next to nothing: with 10, chance alone gives 0.5 in one case of twenty."""


def summarise_attributes(records: Iterable[Record], attributes: Mapping[str, Attribute]) -> dict[str, dict[str, Any]]:
    """Kendall's tau-b of each attribute with the score, over the architectures that were evaluated.

    Args:
        records: evaluations of one target, of which full ones count; of an architecture with several, the mean score.
        attributes: by name.

    Returns:
        By name the attribute's ``unit`` and ``direction``, over how many ``architectures``, and ``kendall_tau``, above
        0 where the direction says rightly which values go with better networks; None for fewer than
        `FEWEST_ARCHITECTURES`, or where all scores are equal.
    """
    scores: dict[Architecture, list[float]] = {}
    values: dict[Architecture, dict[str, float]] = {}
    for record in records:
        if record.full and record.evaluation.status == "ok":
            scores.setdefault(record.architecture, []).append(record.evaluation.score)
            values[record.architecture] = record.evaluation.attributes
    summary = {}
    for name, attribute in attributes.items():
        known = [arch for arch, found in values.items() if math.isfinite(found.get(name, math.nan))]
        sign = 1.0 if attribute.direction == "max" else -1.0
        tau = math.nan
        if len(known) >= FEWEST_ARCHITECTURES:
            means = [sum(scores[arch]) / len(scores[arch]) for arch in known]
            tau = kendall_tau(means, [sign * values[arch][name] for arch in known])
        summary[name] = {
            "unit": attribute.unit,
            "direction": attribute.direction,
            "architectures": len(known),
            "kendall_tau": tau if math.isfinite(tau) else None,
        }
    return summary
