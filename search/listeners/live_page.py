"""The page of a run under way, written anew now and then: a browser that shows it follows the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from search.loop.search import Listener, Search
from search.runs.journal import Record
from search.studies.base import Study

PAUSE_SECONDS = 60.0
"""Until the first page, for a shorter run needs none, and between two of them."""
SHARE = 0.02
"""Of a run's time that its pages may take: one that takes long to write is written the more seldom."""


class LivePage(Listener):
    """Writes ``report.html`` while a run goes on, and once more where it stops before its end.

    Nothing of the run depends on it: what it does leaves no trace in random states, and a page that can't be written
    is given up until the run ends, which says why.

    Args:
        folder: of the run.
        study: what its recipe describes.
        clock: seconds, from any moment on.
    """

    def __init__(self, folder: Path, study: Study, clock: Callable[[], float] = time.monotonic):
        self._folder, self._study, self._clock = folder, study, clock
        self._next = clock() + PAUSE_SECONDS
        self._written = False

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Perhaps it is time."""
        self._now_and_then()

    def trained(self, name: str, epochs: int, values: Mapping[str, float], new: bool, trial: int = 0) -> None:
        """Likewise."""
        if new:
            self._now_and_then()

    def summarised(self, summary: Mapping[str, Any]) -> None:
        """Whoever ran the study writes its page."""
        self._written = False

    def close(self) -> None:
        """A run that stops before its end is not to be waited for."""
        if self._written:
            self._write()

    def _now_and_then(self) -> None:
        if (began := self._clock()) < self._next:
            return
        self._written = self._write()
        ended = self._clock()
        self._next = ended + max(PAUSE_SECONDS, (ended - began) / SHARE) if self._written else math.inf

    def _write(self) -> bool:
        """Write it; whether that was possible."""
        from search.reports.pages import write_report
        from search.training.isolation import isolated

        try:
            with isolated():
                write_report(self._folder, self._study)
        except Exception:  # the run matters more
            return False
        return True
