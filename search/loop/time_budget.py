"""Which evaluations of a search with a limit of time count."""

from __future__ import annotations

from collections.abc import Iterable

from search.runs.journal import Record


class TimeBudget:
    """Says which evaluations of a search count: those that a trial makes within its time.

    NAS-Bench-201's rule (its script ``R_EA.py``): a trial ends before the evaluation that would exceed its time, which
    does not count, nor does any later one of the trial, however cheap.

    Args:
        seconds: time that a trial's evaluations may cost together; None for no limit, everything counts.

    Attributes:
        over: the trials whose time is over.
    """

    def __init__(self, seconds: float | None):
        self.over: set[int] = set()
        self._seconds, self._left = seconds, dict[int, float]()

    def counts(self, record: Record) -> bool:
        """Whether an evaluation counts; to be asked of every one of a search, in order and once."""
        if self._seconds is None:
            return True
        if record.trial in self.over:
            return False
        left = self._left.get(record.trial, self._seconds) - record.evaluation.cost_seconds
        # Fifty times 288 s fit into 14,400 s, however a sum of fifty numbers is rounded.
        rounding = 1e-9 * self._seconds
        self._left[record.trial] = left
        if left <= rounding:
            self.over.add(record.trial)
        return left >= -rounding


def within(records: Iterable[Record], seconds: float | None) -> list[Record]:
    """The evaluations of a search that count (`TimeBudget`), in order.

    Args:
        records: all evaluations of the search so far.
        seconds: time that a trial's evaluations may cost together; None for no limit.
    """
    time_budget = TimeBudget(seconds)
    return [record for record in records if time_budget.counts(record)]
