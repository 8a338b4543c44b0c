"""What the terminal says of a run under way: candidates done, best so far, time left, and why the first one failed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TextIO

from tqdm import tqdm

from search.loop.search import Listener, Search
from search.runs.journal import Record

_LONGEST_REASON = 300


class FirstFailure(Listener):
    """Says of the first evaluation that fails why it did; others are counted.

    Args:
        stream: where to say it; if None, standard error as it is then: an evaluation may have closed and lost it.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream, self._told = stream, False

    def failed(self, name: str, record: Record) -> None:
        """Say it once."""
        if not self._told:
            self._told, stream = True, self._stream or sys.stderr
            with _whatever_the_stream_does():
                # Between the lines of a bar, where one is drawn.
                tqdm.write(f"{name}: an evaluation failed: {shortened(record.evaluation.reason)}", file=stream)
                stream.flush()


def shortened(reason: str) -> str:
    """The reason of a failure, as far as a line of a terminal should go."""
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 3]}..."


class ProgressBar(Listener):
    """One bar over the whole run, and one line for each search that has ended.

    On a terminal the bar is drawn in place. Where nobody watches (a log file), a line now and then says the same. A
    stream that goes away, as the terminal of a run left to itself may, does not end the run.

    What has failed is done, but says nothing of how long an evaluation takes: time left is reckoned without it.

    Args:
        planned: evaluations of every search, by name.
        stream: where to draw; standard error if None.
        pause: seconds between two lines where nobody watches.
        unit: what `planned` counts.
        clock: seconds, from any moment on, for the lines where nobody watches.
    """

    def __init__(
        self,
        planned: Mapping[str, int],
        stream: TextIO | None = None,
        pause: float = 10.0,
        unit: str = "evaluations",
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = stream or sys.stderr
        self._total, self._pause, self._unit, self._clock = sum(planned.values()), pause, unit, clock
        self._name, self._best, self._made = "", float("-inf"), 0
        self._done = self._new = self._failed = 0
        self._spent = 0.0
        self._heard_at = self._line_at = clock()
        self._bar: tqdm | None = None
        if self._stream.isatty():
            # miniters: with tqdm's own adaptation, a step of many look-ups would hide the slow evaluations after it.
            with _whatever_the_stream_does():
                self._bar = tqdm(
                    total=self._total,
                    unit="net" if unit == "evaluations" else unit.removesuffix("s"),
                    file=self._stream,
                    miniters=1,
                    ncols=80,
                    dynamic_ncols=_knows_its_width(self._stream),
                )

    def search_began(self, search: Search, records: Sequence[Record]) -> None:
        """Name the search; evaluations of an earlier attempt count as done, but not for the time left."""
        self._name, self._best, self._made, self._failed = search.name, float("-inf"), 0, 0
        self._take(records)
        if self._bar is not None:
            self._jump(len(records))
            self._bar.set_description(search.name, refresh=False)
            self._bar.set_postfix_str(self._best_in_words(), refresh=False)
            with _whatever_the_stream_does():
                self._bar.refresh()

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Advance by the evaluations made."""
        self._take(records)
        failed = sum(record.evaluation.status == "failed" for record in records)
        seconds = self._seconds() * failed / len(records)  # that the failures took
        self._new, self._spent = self._new + len(records) - failed, self._spent - seconds
        with _whatever_the_stream_does():
            if self._bar is not None:
                self._jump(failed, seconds)
                self._bar.set_postfix_str(self._best_in_words(), refresh=False)
                self._bar.update(len(records) - failed)
                if failed == len(records) and self._clock() - self._line_at >= self._bar.mininterval:
                    self._line_at = self._clock()
                    self._bar.refresh()
            elif self._clock() - self._line_at >= self._pause:
                self._line_at = self._clock()
                self._print(f"{self._name}: {self._line('networks', self._best_in_words())}")

    def _jump(self, count: int, seconds: float = 0.0) -> None:
        """Move the bar on by what is no sign of its speed, nor is the time that it took."""
        assert self._bar is not None
        self._bar.initial += count
        self._bar.n += count
        self._bar.last_print_n += count
        self._bar.last_print_t += seconds

    def _seconds(self) -> float:
        """Since this was last asked; they count as spent."""
        earlier, self._heard_at = self._heard_at, self._clock()
        self._spent += self._heard_at - earlier
        return self._heard_at - earlier

    def trained(self, name: str, epochs: int, values: Mapping[str, float], new: bool, trial: int = 0) -> None:
        """Advance by epochs; those of an earlier attempt count as done, but not for the time left."""
        self._done += epochs
        self._new += epochs if new else 0
        self._seconds()
        words = ", ".join(f"{key} {value:.3g}" for key, value in values.items())
        with _whatever_the_stream_does():
            if self._bar is not None:
                self._bar.set_description(name, refresh=False)
                self._bar.set_postfix_str(words, refresh=False)
                self._bar.initial += 0 if new else epochs
                self._bar.update(epochs)
            elif new and self._clock() - self._line_at >= self._pause:
                self._line_at = self._clock()
                self._print(f"{name}: {self._line(self._unit, words)}")

    def _line(self, unit: str, words: str) -> str:
        done = f"{self._done} of {self._total} {unit} ({100 * self._done // self._total}%)"
        return ", ".join([done, *([words] if words else []), f"{self._time_left()} left"])

    def search_ended(self, search: Search) -> None:
        """Leave a line behind; evaluations for which a limit of time left no room are awaited no more."""
        self._total -= search.evaluations - self._made
        with _whatever_the_stream_does():
            if self._bar is not None:
                self._bar.total = self._total
            self._print(f"{search.name}: {self._found_in_words()} of {self._made} evaluations{self._failures()}")

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            with _whatever_the_stream_does():
                self._bar.close()

    def _take(self, records: Sequence[Record]) -> None:
        self._done += len(records)
        self._made += len(records)
        for record in records:
            self._failed += record.evaluation.status == "failed"
            if record.can_be_best and record.evaluation.score > self._best:
                self._best = record.evaluation.score

    def _best_in_words(self) -> str:
        return f"{self._found_in_words()}{self._failures()}"

    def _found_in_words(self) -> str:
        return "best -" if self._best == float("-inf") else f"best {self._best:.2f}"

    def _failures(self) -> str:
        return f", {self._failed} failed" if self._failed else ""

    def _time_left(self) -> str:
        return tqdm.format_interval(self._spent * (self._total - self._done) / self._new) if self._new else "?"

    def _print(self, line: str) -> None:
        if self._bar is not None:
            tqdm.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)


def _whatever_the_stream_does() -> suppress:
    return suppress(OSError, ValueError)  # ValueError: it was closed in this process


def _knows_its_width(stream: TextIO) -> bool:
    """Whether the terminal says how wide it is; in some containers it is 0 columns wide, and a bar would not show."""
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        return False
