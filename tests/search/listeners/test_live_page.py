"""The page of a run under way says so and loads itself again; nothing of the run depends on it."""

import math
import random
import re
import time

import numpy as np
import pytest
import torch

import search
from search.cli import main
from search.listeners import live_page
from search.listeners.live_page import LivePage

RELOADS = "location.reload()"
PREDICTOR = {"class_path": "PredictorAgent", "init_args": {"initial": 2}}


@pytest.fixture
def always(monkeypatch):
    """A page after every evaluation."""
    monkeypatch.setattr(live_page, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(live_page, "SHARE", math.inf)


def global_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def test_a_run_is_followed_to_its_end(always, tmp_path):
    seen = []

    def evaluate(architecture):
        if len(seen) in (1, 3):
            seen.append((tmp_path / "run" / "report.html").read_text())
        else:
            seen.append("")
        return architecture.count(3)

    before = global_states()
    found = search.find("NASBench201", evaluate, 4, PREDICTOR, folder=tmp_path / "run", quiet=True)
    assert global_states() == before
    for done in (1, 3):
        page = " ".join(seen[done].split())
        assert page.count(RELOADS) == 1
        assert f"<strong>Running.</strong> 0 of 1 searches are complete, and {done} of 4 evaluations made." in page
        moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+"
        (written,) = re.findall(rf"last written at {moment}, this page at ({moment})\.", page)
        # How old it is the page itself finds out: of a run that is killed nobody writes another one.
        (seconds,) = re.findall(r"const age = Date\.now\(\) / 1000 - (\d+),", page)
        assert time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(int(seconds))) == written
        assert "Unfinished" not in page
    page = found.report.read_text()
    assert RELOADS not in page and "Running" not in page and "Unfinished" not in page
    # Without a page nothing is different.
    alone = search.find("NASBench201", lambda architecture: architecture.count(3), 4, PREDICTOR, quiet=True)
    assert [each.architecture for each in alone.records] == [each.architecture for each in found.records]


def test_a_run_that_stops_is_not_waited_for(always, tmp_path, capsys):
    asked = []

    def evaluate(architecture):
        asked.append(architecture)
        if len(asked) == 3:
            assert main(["report", str(tmp_path)]) == 0  # from elsewhere, while it goes on
            assert RELOADS in (tmp_path / "report.html").read_text()
            raise KeyboardInterrupt
        return architecture.count(3)

    with pytest.raises(KeyboardInterrupt):
        search.find("NASBench201", evaluate, 6, "RandomSearch", folder=tmp_path, quiet=True)
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert RELOADS not in page and "<strong>Unfinished.</strong> 0 of 1 searches are complete, and 2 of 6" in page


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def written(monkeypatch):
    """When pages were written, each of which takes as long as it is told."""
    clock, times = Clock(), []
    clock.times, clock.takes, clock.fails = times, 1.0, False

    def write(folder, study):
        times.append(clock.now)
        clock.now += clock.takes
        if clock.fails:
            raise OSError("no space left")

    monkeypatch.setattr("search.reports.pages.write_report", write)
    return clock


def follow(clock, until, step=1.0):
    page = LivePage(None, None, clock)
    while clock.now < until:
        clock.now += step
        page.evaluated(None, [])
    return page


def test_pages_take_a_small_share_of_the_time(written):
    written.takes = 0.1
    follow(written, 59.0)
    assert written.times == []
    follow(written, 400.0)
    gaps = np.diff(written.times)
    assert written.times[0] >= 60 and len(gaps) >= 3 and all(60 <= gap < 62 for gap in gaps)
    written.times.clear()
    written.takes = 4.0
    follow(written, written.now + 2000.0)
    assert len(written.times) * 4.0 / 2000.0 <= live_page.SHARE + 4.0 / 2000.0 and len(written.times) >= 8


def test_a_page_that_can_not_be_written_is_given_up(written):
    written.fails = True
    page = follow(written, 500.0)
    page.close()
    assert len(written.times) == 1


def test_known_epochs_are_no_news(written):
    page = LivePage(None, None, written)
    written.now = 100.0
    page.trained("a", 3, {}, new=False)
    assert written.times == []
    page.trained("a", 1, {}, new=True)
    assert written.times == [100.0]
    page.summarised({})
    page.close()
    assert written.times == [100.0]
