"""One walk over a run's journal, from which every part of the report takes what it needs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from search.loop.time_budget import TimeBudget
from search.results.search import best_so_far
from search.runs.journal import Journal, Record
from search.studies.experiment import Experiment
from search.studies.meta_training import PHASE

MOST_ROWS = 2000
"""Evaluations that the report lists one by one."""


class Reader(Protocol):
    """A part of the report that needs evaluations."""

    def read(self, search: str, records: Sequence[Record]) -> None:
        """All evaluations of one search; called once for each search that has begun."""


@dataclass
class Failure:
    """Evaluations that failed for one reason.

    Attributes:
        reason: one of them, in its own words.
        count: all of them.
        searches: their number by search.
    """

    reason: str
    count: int = 0
    searches: dict[str, int] = field(default_factory=dict)


@dataclass
class Gathered:
    """What one walk over the journal gives.

    Attributes:
        finals: by target and agent, each trial's best score: float64 ``[trials]``, NaN where none succeeded.
        stages: by meta-training task and agent, every score.
        failures: by reason less its numbers.
        rows: (trial, place of the search, evaluation, search, record), those that the page lists.
        total: evaluations in the journal.
    """

    finals: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    stages: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    rows: list[tuple[int, int, int, str, Record]] = field(default_factory=list)
    total: int = 0


def gather(experiment: Experiment, journal: Journal, readers: Sequence[Reader] = ()) -> Gathered:
    """Walk over the journal once.

    Args:
        experiment: what the run's recipe describes.
        journal: it may hold millions of evaluations; a search at a time is in memory.
        readers: who else needs the evaluations.
    """
    gathered = Gathered()
    begun = set(journal.searches())
    best_rows = []
    for place, search in enumerate(experiment.planned()):
        if search not in begun:
            continue
        phase, _, agent = search.partition("/")
        records = list(journal.records(search))
        gathered.total += len(records)
        for reader in readers:
            reader.read(search, records)
        counts: dict[int, int] = {}
        rows = []
        for record in records:
            counts[record.trial] = counts.get(record.trial, 0) + 1
            rows.append((record.trial, place, counts[record.trial], search, record))
            if record.evaluation.status == "failed":
                key = re.sub(r"\d+(\.\d+)?", "#", record.evaluation.reason)
                failure = gathered.failures.setdefault(key, Failure(record.evaluation.reason))
                failure.count += 1
                failure.searches[search] = failure.searches.get(search, 0) + 1
            if phase == PHASE:
                stage = gathered.stages.setdefault(record.stage, {})
                stage.setdefault(agent, []).append(record.evaluation.score)
        if phase in experiment.targets:
            seconds = experiment.seconds(phase)
            curve = best_so_far(records, experiment.trials, seconds)
            final = curve[:, -1] if curve.shape[1] else np.full(experiment.trials, math.nan)
            gathered.finals.setdefault(phase, {})[agent] = final
            time_budget = TimeBudget(seconds)
            good = [row for row in rows if time_budget.counts(row[-1]) and row[-1].can_be_best]
            if good:
                best_rows.append(max(good, key=lambda row: row[-1].evaluation.score))
        gathered.rows += sorted(rows, key=lambda row: row[:3])[:MOST_ROWS]
    # The best of every search first, then whole trials: what a reader looks for is there.
    first = {row[:3]: row for row in best_rows}
    for row in sorted(gathered.rows, key=lambda row: row[:3]):
        if len(first) >= MOST_ROWS:
            break
        first[row[:3]] = row
    gathered.rows = sorted(first.values(), key=lambda row: (row[1], row[0], row[2]))
    return gathered
