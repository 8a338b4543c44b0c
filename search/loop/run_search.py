"""The search loop: ask -> evaluate -> tell, one durable step after another.

Progress bars, W&B and plots are listeners: the loop tells them what happened and does not know them by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.loop.asynchronous import AsynchronousWalk
from search.loop.in_step import SynchronousWalk
from search.loop.search import Listener, Search
from search.loop.time_budget import TimeBudget
from search.loop.walk import Walk
from search.runs.journal import Journal, Record


def run_search(search: Search, journal: Journal, listeners: Sequence[Listener] = ()) -> None:
    """Run a search to its end, from wherever the journal says it stands.

    An agent is a pure function of its state, of what it is asked and of what it is told. So its state is saved only as
    often as that takes a small part of the time; steps after the last save are replayed on resume with the journal's
    evaluations.

    Without an executor, or with one of a single worker, a recipe and a seed decide every bit of the result. With more
    workers than trials the order in which evaluations finish has its part, and the journal records it: a resumed search
    replays it, and evaluates again only what was under way, with the same seeds.

    Args:
        search: agent and tasks.
        journal: where every evaluation goes; a search found there is resumed bit for bit.
        listeners: who wants to know.

    Raises:
        RunError: too many evaluations in a row failed, or the journal was written by an agent that asks
            otherwise. What was found before stays in the journal.
        CatchmarkError: a task breaks its contract.
    """
    journal.begin(search.name)
    records = list(journal.records(search.name))
    for listener in listeners:
        listener.search_began(search, records)
    failures = _failures_in_a_row(records) % search.most_failures
    kind: type[Walk] = AsynchronousWalk if search.asynchronous else SynchronousWalk
    try:
        kind(search, journal, listeners, TimeBudget(search.seconds), failures).to_the_end(records)
    finally:
        if search.executor is not None:
            search.executor.drop()
    for listener in listeners:
        listener.search_ended(search)


def _failures_in_a_row(records: Sequence[Record]) -> int:
    """How many of the last evaluations failed."""
    failures = 0
    for record in reversed(records):
        if record.evaluation.status != "failed":
            break
        failures += 1
    return failures
