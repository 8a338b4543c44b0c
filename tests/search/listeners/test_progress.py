"""The progress bar says what is true: done, best, time left."""

import fcntl
import io
import math
import os
import pty
import re
import struct
import termios
from contextlib import suppress

import pytest

from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation, Proposal
from search.listeners.progress import ProgressBar
from search.loop.search import Search, Stage
from search.runs.journal import Record
from tests.search.agents.toy_spaces import Grid


class Screen(io.StringIO):
    """A terminal as far as a program can ask."""

    def isatty(self):
        return True

    @property
    def last(self):
        """What the last redraw shows."""
        return self.getvalue().replace("\x1b[A", "").rstrip().split("\r")[-1]


class Clock:
    """Stands still, but where it is told to go on."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The time as the bar sees it, by its own clock or tqdm's."""
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def search(name="target/random", budget=20, trials=1):
    return Search(name, RandomSearch(Grid(), trials), [Stage("toy", None, budget, True)], 0)


def records(*scores):
    return [
        Record(
            k, 0, 0, "toy", Proposal((0,) * 6), Evaluation(score) if score == score else Evaluation.failed("no luck")
        )
        for k, score in enumerate(scores)
    ]


def shown(text):
    """(done, total, seconds left or None) of a bar's text."""
    done, total = re.search(r"(\d+)/(\d+) \[", text).groups()
    clock = re.search(r"<([\d:?]+),", text)[1]
    left = None if "?" in clock else sum(60**k * int(part) for k, part in enumerate(reversed(clock.split(":"))))
    return int(done), int(total), left


def test_the_bar_shows_done_best_and_time_left(clock):
    screen = Screen()
    bar = ProgressBar({"a/random": 20, "b/random": 30}, screen, clock=clock)
    one = search("a/random")
    bar.search_began(one, [])
    assert shown(screen.last)[:2] == (0, 50) and "a/random" in screen.last and "best -" in screen.last
    for k in range(10):
        clock.now += 0.5
        bar.evaluated(one, records([math.nan, 3.0, 7.25, 2.0][k % 4]))
    assert shown(screen.last) == (10, 50, 20) and "best 7.25" in screen.last  # 40 more at 2 a second
    bar.close()


def test_resumed_evaluations_do_not_distort_the_rate(clock):
    """Of 2,020 evaluations 1,000 are there: ten more at eight a second leave 126 seconds, not one."""
    screen = Screen()
    bar = ProgressBar({"a/random": 1000, "b/random": 1020}, screen)
    finished, one = search("a/random", 1000), search("b/random", 1020)
    bar.search_began(finished, records(*[5.0] * 1000))
    bar.search_ended(finished)
    bar.search_began(one, [])
    for k in range(10):
        clock.now += 0.125
        bar.evaluated(one, records(1.0))
        assert shown(screen.last) == (1001 + k, 2020, (1019 - k) // 8)
    bar.close()


def test_the_best_is_the_searchs_own():
    screen = Screen()
    bar = ProgressBar({"a/random": 3, "b/random": 3}, screen)
    one, other = search("a/random", 3), search("b/random", 3)
    bar.search_began(one, records(math.nan, 9.0))  # a failure first must not hide what came after
    assert "best 9.00" in screen.last
    bar.evaluated(one, records(1.0))
    bar.search_ended(one)
    assert "a/random: best 9.00 of 3 evaluations, 1 failed\n" in screen.getvalue()
    bar.search_began(other, [])
    bar.evaluated(other, records(math.nan, math.nan, math.nan))
    bar.search_ended(other)
    assert "b/random: best - of 3 evaluations, 3 failed\n" in screen.getvalue()
    bar.close()


def test_slow_evaluations_show_after_many_fast_ones(clock):
    screen = Screen()
    bar = ProgressBar({"a": 1003}, screen)
    one = search("a", 1003)
    bar.search_began(one, [])
    bar.evaluated(one, records(*[1.0] * 1000))
    for k in range(3):
        clock.now += 0.11
        bar.evaluated(one, records(2.0 + k))
        assert shown(screen.last)[0] == 1001 + k
    bar.close()


@pytest.mark.parametrize("columns", [60, 200, 0])
def test_a_real_terminal(columns):
    """Also one that does not know its width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    with open(theirs, "w") as stream:
        bar = ProgressBar({"a": 2}, stream)
        one = search("a", 2)
        bar.search_began(one, [])
        bar.evaluated(one, records(1.0, 2.0))
        bar.search_ended(one)
        bar.close()
    text = b""
    with suppress(OSError):  # what a terminal answers once its other end is closed and all is read
        while part := os.read(ours, 10_000):
            text += part
    os.close(ours)
    lines = re.split("[\r\n]+", text.decode().rstrip())
    assert "a: best 2.00 of 2 evaluations" in lines and shown(lines[-1])[:2] == (2, 2)
    assert max(map(len, lines)) <= (columns or 80)


# ---- where nobody watches ----------------------------------------------------------------------------------------


def test_few_lines_where_nobody_watches(clock):
    stream = io.StringIO()
    bar = ProgressBar({"a/random": 300, "b/random": 300}, stream, clock=clock)
    for name in ("a/random", "b/random"):
        one = search(name, 300)
        bar.search_began(one, [])
        for k in range(300):
            clock.now += 1
            bar.evaluated(one, records(float(k)))
        bar.search_ended(one)
    bar.close()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()
    assert (
        lines.count("a/random: best 299.00 of 300 evaluations")
        == 1
        == lines.count("b/random: best 299.00 of 300 evaluations")
    )
    progress = [line for line in lines if "networks" in line]
    assert len(progress) == 600 / 10 and len(lines) == len(progress) + 2  # a line every ten seconds
    for line in progress:
        name, done, share, best, minutes, seconds = re.fullmatch(
            r"(\w/random): (\d+) of 600 networks \((\d+)%\), best (\d+)\.00, (\d\d):(\d\d) left", line
        ).groups()
        assert 60 * int(minutes) + int(seconds) == 600 - int(done)
        assert int(share) == int(done) * 100 // 600
        assert int(done) == int(best) + 1 + 300 * (name == "b/random")


def test_nothing_but_the_end_of_a_short_run():
    stream = io.StringIO()
    bar = ProgressBar({"a": 50}, stream)
    one = search("a", 50)
    bar.search_began(one, records(*[1.0] * 20))
    bar.evaluated(one, records(*[2.0] * 30))
    bar.search_ended(one)
    bar.close()
    assert stream.getvalue() == "a: best 2.00 of 50 evaluations\n"


def test_time_left_in_a_log_leaves_out_what_an_earlier_attempt_did(clock):
    stream = io.StringIO()
    bar = ProgressBar({"a": 2000}, stream, pause=0.0, clock=clock)
    one = search("a", 2000)
    bar.search_began(one, records(*[1.0] * 1000))
    clock.now += 0.2
    bar.evaluated(one, records(*[1.0] * 10))
    # 990 at 50 a second.
    assert stream.getvalue() == "a: 1010 of 2000 networks (50%), best 1.00, 00:19 left\n"


# ---- a stream that goes away -------------------------------------------------------------------------------------


class Gone(Screen):
    """Writes raise what a closed terminal raises."""

    def __init__(self, watched):
        super().__init__()
        self.watched, self.open, self.tries = watched, True, 0

    def isatty(self):
        return self.watched

    def write(self, text):
        if not self.open:
            self.tries += 1
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("watched", [True, False])
def test_a_terminal_that_closes_does_not_end_the_run(watched, clock):
    stream = Gone(watched)
    bar = ProgressBar({"a": 30}, stream, pause=0.0)
    one = search("a", 30)
    bar.search_began(one, [])
    bar.evaluated(one, records(1.0))
    stream.open = False
    for _ in range(3):
        clock.now += 0.11
        bar.evaluated(one, records(2.0))
    bar.search_ended(one)
    bar.search_began(one, [])
    bar.close()
    assert stream.tries > 3


def test_a_pipe_that_closes_does_not_end_the_run():
    read, write = os.pipe()
    stream = open(write, "w", buffering=1)
    bar = ProgressBar({"a": 30}, stream, pause=0.0)
    bar.search_began(search("a", 30), [])
    os.close(read)
    for _ in range(3):
        bar.evaluated(search("a", 30), records(1.0))
    bar.close()
    with pytest.raises(BrokenPipeError):
        stream.write("still broken\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), write)
    stream.close()


def test_evaluations_for_which_no_time_was_left_are_not_waited_for():
    """Of 20 planned, 8 made and the search over: 30 more to come, and 38 in all."""
    for stream in (Screen(), io.StringIO()):
        bar = ProgressBar({"a/random": 20, "b/random": 30}, stream, pause=0.0)
        limited, other = search("a/random"), search("b/random", 30)
        bar.search_began(limited, records(1.0, 2.0))
        bar.evaluated(limited, records(*range(6)))
        bar.search_ended(limited)
        assert "a/random: best 5.00 of 8 evaluations" in stream.getvalue()
        bar.search_began(other, [])
        bar.evaluated(other, records(*range(30)))
        bar.search_ended(other)
        assert "b/random: best 29.00 of 30 evaluations" in stream.getvalue()
        assert (shown(stream.last)[:2] == (38, 38)) if stream.isatty() else ("38 of 38 networks" in stream.getvalue())
        bar.close()
