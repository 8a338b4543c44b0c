"""The progress bar: candidates done, best so far, time left."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from tqdm import tqdm

from search.journal import Record
from search.loop import Listener, Search


class ProgressBar(Listener):
    """One bar over the whole run; one line for each search that has ended.

    Args:
        planned: evaluations of every search, by name.
        stream: where to draw; standard error if None.
    """

    def __init__(self, planned: Mapping[str, int], stream: TextIO | None = None):
        stream = stream or sys.stderr
        # Where nobody watches (a log file), a line every 10 seconds is enough.
        pause = 0.1 if stream.isatty() else 10.0
        self._bar = tqdm(total=sum(planned.values()), unit="net", file=stream, mininterval=pause, dynamic_ncols=True)
        self._best = float("-inf")

    def search_began(self, search: Search, records: Sequence[Record]) -> None:
        """Name the search; evaluations of an earlier attempt count as done, but not for the time left."""
        self._best = max((record.evaluation.score for record in records), default=float("-inf"))
        self._bar.set_description(search.name, refresh=False)
        self._bar.initial += len(records)
        self._bar.n += len(records)
        self._bar.refresh()

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Advance by the evaluations made."""
        # A comparison with NaN, a failed evaluation's score, is False: it never becomes the best.
        for record in records:
            if record.evaluation.score > self._best:
                self._best = record.evaluation.score
        self._bar.set_postfix_str(f"best {self._best:.2f}", refresh=False)
        self._bar.update(len(records))

    def search_ended(self, search: Search) -> None:
        """Leave a line behind."""
        tqdm.write(f"{search.name}: best {self._best:.2f} of {search.evaluations} evaluations", file=self._bar.fp)

    def close(self) -> None:
        """Finish the bar."""
        self._bar.close()
