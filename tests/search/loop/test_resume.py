"""A run that is killed with ``kill -9``, anywhere and as often as one likes, ends as if nothing had happened.

Real processes run a real recipe through the command line.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import search.studies.experiment
from search.cli import main
from search.loop.search import Listener
from search.results.search import without_seconds
from search.runs.journal import Journal
from search.spaces.base import SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.tables.table import write_table
from search.tasks.base import OneByOne, TaskPool
from search.tasks.table import TableTask
from tests.processes import alive, wait_until
from tests.search.exact_text import exact_text

RECIPE = """
description: Killed again and again.
space: NASBench201
targets:
  slow:
    class_path: tests.search.loop.test_resume.SlowTask
    init_args: {table: TABLE, dataset: cifar10}
  table:
    class_path: TableTask
    init_args: {table: TABLE, dataset: cifar100, split: val, metric: acc, epochs: 12}
agents:
  random: RandomSearch
  catch:
    class_path: CATCHer
    init_args:
      settings: {hidden: 16, candidates: 8, initial_networks: 3, policy_updates: 2, evaluator_updates: 3}
meta_training:
  pool:
    class_path: tests.search.loop.test_resume.SlowPool
    init_args: {table: TABLE}
  agents: [catch]
  epochs: 3
  networks: 5
budget: 8
trials: 2
batch: 3
"""
MADE, ANNOUNCED, HOLD = "made.txt", "announced.txt", "hold"
HELD = 20
"""Evaluations that are announced before one waits, where a test has it held, amid a search and its trials."""


# ---- what runs in the processes that are killed ------------------------------------------------------------------


def note(file, *fields):
    """One durable line, in one write."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, (json.dumps(fields) + "\n").encode())
    os.fsync(descriptor)
    os.close(descriptor)


def notes(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class SlowTask(OneByOne):
    """A column of a table that takes its time, so that kills hit the middle of steps."""

    now_searching = ""

    def __init__(self, space: SearchSpace, table: str, dataset: str):
        self.space, self.table = space, TableTask(space, table, dataset, "val", "acc", 12, cost_seconds=7.0)

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        note(MADE, self.now_searching, list(architecture), seed)
        time.sleep(0.01)
        while Path(HOLD).exists() and len(notes(Path(ANNOUNCED))) > HELD:
            time.sleep(0.01)
        return next(self.table.evaluate([proposal]))


class SlowPool(TaskPool):
    """Both columns in turn."""

    def __init__(self, space: SearchSpace, table: str):
        self.tasks = [SlowTask(space, table, dataset) for dataset in ("svhn", "flowers")]

    def draw(self, index, seed):
        return self.tasks[(index + seed) % 2]


class Announcements(Listener):
    """Writes down what it is told is safe."""

    def evaluated(self, search, records):
        for record in records:
            note(ANNOUNCED, search.name, repr(record))


def run_search(search_, journal, listeners=()):
    SlowTask.now_searching = search_.name
    PLAIN_RUN_SEARCH(search_, journal, [*listeners, Announcements()])


PLAIN_RUN_SEARCH = search.studies.experiment.run_search


def die_at_replacement(number, before):
    """Kill this very process before or after its ``number``-th atomic replacement of a file."""
    plain, calls = os.replace, 0

    def replace(source, target):
        nonlocal calls
        calls += 1
        if not before:
            plain(source, target)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        if before:
            plain(source, target)

    os.replace = replace


def work(resume, die):
    search.studies.experiment.run_search = run_search
    if die:
        die_at_replacement(*die)
    return main(["run", "recipe.yaml", "--quiet", *(["--resume"] if resume else [])])


# ---- what kills them ---------------------------------------------------------------------------------------------


WORK = "import sys; from tests.search.loop.test_resume import work; sys.exit(work(%r, %r))"


class Runs:
    """Starts runs."""

    def __init__(self, server, recipe):
        self.server = server
        # Every class that the recipe names is imported once and for all.
        server.prepare(f"from tests.search.loop.test_resume import main; main(['run', {str(recipe)!r}, '--dry-run'])")

    def run(self, folder, resume=False, kill_after=None, send=None, die=None):
        """One attempt, killed after so many seconds or sent a signal while it is held; its exit code, -9 if killed."""
        child = self.server.start(
            WORK % (resume, die),
            folder=folder,
            environment={**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"},
            stdout=folder / "output.txt",
        )
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)  # not waited for yet, so the number is still its own
        if send is not None:
            wait_until(lambda: len(notes(folder / ANNOUNCED)) > HELD or not alive(child))
            os.kill(child, send)
            (folder / HOLD).unlink()
        return self.server.wait(child)


@pytest.fixture(scope="module")
def runs(server, table, tmp_path_factory):
    recipe = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    recipe.write_text(RECIPE.replace("TABLE", str(table)))
    return Runs(server, recipe)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    space = NASBench201()
    archs = np.array(list(space.enumerate()), dtype=np.int8)
    generator = np.random.default_rng(0)
    names = ("svhn", "flowers", "cifar10", "cifar100")
    columns = {f"{name}_val_acc_12ep": generator.uniform(10, 90, len(archs)) for name in names}
    columns["cifar10_val_acc_12ep"][generator.random(len(archs)) < 0.15] = np.nan  # failed evaluations
    return write_table(tmp_path_factory.mktemp("table") / "table.npz", archs, columns, space.name)


class Run:
    """A folder for one run and what it left there."""

    def __init__(self, runs, table, folder):
        self.runs, self.folder = runs, folder
        folder.mkdir()
        (folder / "recipe.yaml").write_text(RECIPE.replace("TABLE", str(table)))
        self.committed = Counter()

    @property
    def latest(self):
        return self.folder / "runs" / "recipe" / "latest"

    def attempt(self, **options):
        """Begin, or go on; afterwards look what became of the evaluations."""
        resume = (self.latest / "journal.sqlite").exists()
        made_before = len(notes(self.folder / MADE))
        if "send" in options:
            (self.folder / HOLD).touch()
        code = self.runs.run(self.folder, resume=resume, **options)
        made = Counter(json.dumps(each) for each in notes(self.folder / MADE)[made_before:])
        assert not made & self.committed, "an evaluation was paid for twice"
        records = self.records()
        self.committed = Counter(json.dumps([name, list(record.architecture), record.seed]) for name, record in records)
        safe = {(name, repr(record)) for name, record in records}
        assert {tuple(each) for each in notes(self.folder / ANNOUNCED)} <= safe, "an announced evaluation is gone"
        return code

    def records(self):
        if not (self.latest / "journal.sqlite").exists():
            return []
        # Opened for writing: a process killed at its first breath leaves a file without tables, which is then made.
        journal = Journal(self.latest / "journal.sqlite")
        try:
            return [(name, record) for name in journal.searches() for record in journal.records(name)]
        finally:
            journal.close()

    def result(self):
        """All that a run finds: summary, journal, and meta-trained weights."""
        return (
            without_seconds(json.loads((self.latest / "summary.json").read_text())),
            self.records(),
            exact_text(torch.load(self.latest / "weights" / "catch.pt", weights_only=True)),
        )


@pytest.fixture(scope="module")
def reference(runs, table, tmp_path_factory):
    """The run that nothing interrupts, how long it took, and how often it replaced a file."""
    run = Run(runs, table, tmp_path_factory.mktemp("reference") / "run")
    start = time.monotonic()
    assert run.attempt() == 0, (run.folder / "output.txt").read_text()
    seconds = time.monotonic() - start
    print(f"a run takes {seconds:.2f} s")
    # 15 evaluations to meta-train with; two trials of 8 for two agents on two targets.
    assert len(run.records()) == 15 + 2 * 8 * 2 * 2
    assert len(notes(run.folder / ANNOUNCED)) == len(run.records())
    assert len(notes(run.folder / MADE)) == 15 + 2 * 8 * 2
    summary, *_ = run.result()
    assert (
        summary["targets"]["slow"]["agents"]["catch"]["failed"]
        + summary["targets"]["slow"]["agents"]["random"]["failed"]
        > 0
    )
    return run.result(), seconds


def check_against(reference, run):
    for ours, theirs in zip(run.result(), reference, strict=True):
        assert repr(ours) == repr(theirs)


# Nine runs that are killed once, two twice, one four times, one eight times.
KILLS = [1] * 9 + [2] * 2 + [4] + [8]


@pytest.mark.parametrize("scenario", range(len(KILLS)))
def test_killed_at_a_random_moment(scenario, runs, table, reference, tmp_path):
    result, seconds = reference
    choose = random.Random(scenario)
    run = Run(runs, table, tmp_path / "run")
    for _ in range(KILLS[scenario]):
        done = len(run.records()) / len(result[1])
        moment = choose.uniform(0, seconds * min(1, 2 / KILLS[scenario]))
        code = run.attempt(kill_after=moment)
        print(f"began with {done:4.0%}, killed after {moment:.2f} s of {seconds:.2f} s: {len(run.records())} records")
        assert code in (-signal.SIGKILL, 0), (run.folder / "output.txt").read_text()
    assert run.attempt() == 0, (run.folder / "output.txt").read_text()
    check_against(result, run)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("number, name", [(1, "the link"), (2, "the weights"), (3, "the summary"), (4, "the report")])
def test_killed_as_a_file_is_put_in_place(number, name, before, runs, table, reference, tmp_path):
    run = Run(runs, table, tmp_path / "run")
    code = run.attempt(die=(number, before))
    assert code == -signal.SIGKILL or name == "the report"
    if name == "the summary":
        assert (run.latest / "summary.json").exists() is not before
    assert run.attempt() == 0, (run.folder / "output.txt").read_text()
    check_against(reference[0], run)


def test_a_second_process_is_refused_and_harms_nothing(runs, table, reference, tmp_path):
    run = Run(runs, table, tmp_path / "run")
    assert run.attempt(send=signal.SIGKILL) == -signal.SIGKILL
    journal = Journal(run.latest / "journal.sqlite")
    assert runs.run(run.folder, resume=True) == 1
    journal.close()
    assert "is being written by another process" in (run.folder / "output.txt").read_text().splitlines()[-1]
    assert run.attempt() == 0, (run.folder / "output.txt").read_text()
    check_against(reference[0], run)


def test_a_terminated_run_can_go_on_at_once(runs, table, reference, tmp_path):
    """SIGTERM, as a scheduler sends it."""
    run = Run(runs, table, tmp_path / "run")
    assert run.attempt(send=signal.SIGTERM) == 130
    assert HELD < len(run.records()) < len(reference[0][1])
    last = (run.folder / "output.txt").read_text().splitlines()[-1]
    assert "stopped; what was evaluated is kept" in last and "Traceback" not in (run.folder / "output.txt").read_text()
    assert run.attempt() == 0, (run.folder / "output.txt").read_text()
    check_against(reference[0], run)
