"""The journal: what goes in comes out, and every fault of the disk ends in one clear line, never in other numbers."""

import math
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from search.agents.random_search import RandomSearch
from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation, Proposal
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.runs.journal import Journal, Record
from search.tasks.base import OneByOne
from tests.processes import PATIENCE
from tests.search.agents.toy_spaces import Grid


def some_record(step, slot=0, trial=0, score=None):
    score = step * 1.1 if score is None else score
    history = [{"loss": 1 / 3, "accuracy": 50.0}, {}, {"loss": score}] if trial == 1 and score == score else []
    metrics = {"loss": -score / 3} | ({"history": 3.0} if trial == 2 else {})
    artifact = f"artifacts/a/b/{trial}-{step}" if slot else None
    evaluation = Evaluation(
        score, metrics, 0.25, history=history, artifact=artifact, attributes={"flops": slot / 3}, violation=slot / 7
    )
    if score != score:
        evaluation = Evaluation.failed("no luck", 0.5, [{"loss": 7e300}] * slot)
    demands = (
        {"fidelity": {"epochs": 3.0}, "parent": (3, 2, 1), "stop_below": step / 3} if slot and score == score else {}
    )
    proposal = Proposal((step % 4, 1, 2), 2**31 - 1 - step, **demands)
    return Record(step, slot, trial, "task ü", proposal, evaluation)


def same(a, b):
    """Records are equal, and a failed evaluation's NaN equals itself."""
    return repr(a) == repr(b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


def filled(path, steps=40):
    """A closed journal of two searches, one of them with a state."""
    journal = Journal(path)
    journal.set_about("recipe", "space: NASBench201\n")
    for name in ("target/random", "target/catch"):
        journal.begin(name)
        for step in range(steps):
            record = some_record(step, score=math.nan if step == 3 else None)
            state = {"step": step, "weights": torch.arange(20.0)} if name.endswith("catch") else None
            journal.finish_step(name, [record], state, finished=False, seconds=0.5)
    journal.close()
    return path


def content(path):
    """All that a journal tells, as text."""
    journal = Journal(path, writable=False)
    try:
        return repr(
            [
                (name, list(journal.records(name)), journal.progress(name), journal.state(name))
                for name in journal.searches()
            ]
        ) + repr([journal.about(key) for key in ("format", "recipe", "status")])
    finally:
        journal.close()


def _start(function, *arguments):
    """A function of this file in a process of its own, its output in a pipe."""
    code = f"from tests.search.runs.test_journal import {function}; {function}(*{[str(each) for each in arguments]!r})"
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )


# ---- contents ----------------------------------------------------------------------------------------------------


def test_records_come_back_in_order_and_exact(path):
    records = [
        some_record(step, slot, trial, score)
        for step, score in enumerate([0.1 + 0.2, math.pi * 1e300, -5e-324, math.nan, 1.0, 1 / 3])
        for slot in range(2)
        for trial in range(3)
    ]
    shuffled = records[:]
    random.Random(0).shuffle(shuffled)
    journal = Journal(path)
    journal.begin("a")
    journal.add("a", shuffled)
    assert same(list(journal.records("a")), records)
    assert same(list(journal.records("a", 2)), records[12:18])
    assert list(journal.records("another")) == []
    journal.close()
    reopened = Journal(path, writable=False)
    assert same(list(reopened.records("a")), records)
    reopened.close()


def test_states_facts_and_progress(path):
    journal = Journal(path)
    assert journal.about("status") is None and journal.state("a") is None and journal.progress("a") == (False, 0.0)
    journal.begin("a")
    journal.finish_step("a", [some_record(0)], {"weights": torch.tensor([1.5]), "name": "x"}, False, 1.5)
    journal.finish_step("a", [some_record(1)], None, False, 0.25)
    state = journal.state("a")
    assert state["name"] == "x" and torch.equal(state["weights"], torch.tensor([1.5]))  # the last one saved stays
    journal.begin("a")
    assert journal.progress("a") == (False, 1.75)
    journal.finish_step("a", [some_record(2)], None, True, 0.25)
    assert journal.state("a") is None and journal.progress("a") == (True, 2.0)
    journal.set_about("status", "running")
    journal.set_about("status", "finished")
    assert journal.about("status") == "finished" and journal.searches() == ["a"]
    journal.close()


def test_a_transaction_is_all_or_nothing(path):
    journal = Journal(path)
    journal.begin("a")
    journal.add("a", [some_record(0)])

    def interrupted():
        yield some_record(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.finish_step("a", interrupted(), {"step": 2}, False, 1.0)
    assert same(list(journal.records("a")), [some_record(0)])
    assert journal.state("a") is None and journal.progress("a") == (False, 0.0)
    with pytest.raises(sqlite3.IntegrityError):  # the same evaluation a second time is the loop's mistake
        journal.add("a", [some_record(1), some_record(0)])
    assert same(list(journal.records("a")), [some_record(0)])
    journal.close()


@pytest.mark.parametrize("name", ["a?mode=memory", "b#c", "per%20cent", "Zürich", "two words"])
def test_any_folder_name_will_do(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    assert content(filled(folder / "journal.sqlite", steps=2)).count("Record(") == 4


def test_a_closed_journal_is_a_single_file_that_needs_no_writing(path):
    filled(path)
    assert sorted(each.name for each in path.parent.iterdir()) == ["journal.lock", "journal.sqlite"]
    # Bytes 18 and 19 of SQLite's header: 1 is a rollback journal, 2 a write-ahead log, which reading would have to set
    # up beside the file.
    assert path.read_bytes()[18:20] == b"\1\1"


def test_can_be_read_while_it_is_written(path):
    journal = Journal(path)
    journal.begin("a")
    journal.add("a", [some_record(0)])
    assert content(path).count("Record(") == 1
    reader = Journal(path, writable=False)
    journal.add("a", [some_record(1)])
    assert len(list(reader.records("a"))) == 2
    with pytest.raises(RunError, match="could not be used"):
        reader.set_about("status", "finished")
    journal.close()
    reader.close()


# ---- one writer --------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused(path):
    journal = Journal(path)
    with pytest.raises(RunError, match=rf"being written by another process \({os.getpid()}\)") as caught:
        Journal(path)
    assert caught.value.exit_code == 1
    journal.close()
    Journal(path).close()


def _write_with_a_child(folder):
    journal = Journal(os.path.join(folder, "journal.sqlite"))
    child = os.fork()
    if child:  # a data loader's worker, say, that will not notice at once when its parent dies
        print(child, flush=True)
    time.sleep(1000)
    journal.close()


def test_a_killed_writer_leaves_no_lock_even_to_its_children(path):
    process = _start("_write_with_a_child", path.parent)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(RunError, match=rf"\({process.pid}\)"):
            Journal(path)
        process.kill()
        os.waitpid(process.pid, 0)
        os.kill(child, 0)  # it lives
        Journal(path).close()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(RunError, match="can't be written"):
        Journal(tmp_path / "nowhere" / "journal.sqlite")
    with pytest.raises(CatchmarkError, match="does not exist"):
        Journal(tmp_path / "journal.sqlite", writable=False)


# ---- damage ------------------------------------------------------------------------------------------------------


def test_a_journal_cut_short(path):
    whole, text = filled(path).read_bytes(), content(path)
    refused = 0
    for length in [10, 99, 100, 2000, 4096, 5000, *range(8192, len(whole), 1500), len(whole) - 1]:
        path.write_bytes(whole[:length])
        for writable in (False, True):
            with pytest.raises(CatchmarkError, match=r"journal.sqlite is damaged \(.*\); restore it") as caught:
                Journal(path, writable).close()
            assert "\n" not in str(caught.value)
            refused += 1
    assert refused > 20
    path.write_bytes(whole)
    assert content(path) == text


def test_a_flipped_bit_never_changes_a_number(path):
    """Either the journal is refused, or the bit was in a place that holds nothing."""
    whole = filled(path, steps=25).read_bytes()
    text, refused = content(path), 0
    choose = random.Random(0)
    places = [*range(0, 120 * 8, 7), *(choose.randrange(len(whole) * 8) for _ in range(500))]
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert content(path) == text, place
        except CatchmarkError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


def test_a_damaged_tail_of_the_log_loses_the_tail_only(path):
    """What a power cut may do: commits after the damage are gone, those before it are there."""
    journal = Journal(path)
    journal.begin("a")
    for step in range(30):
        journal.add("a", [some_record(step)])
    copy = path.parent / "copy"
    copy.mkdir()
    for each in path.parent.glob("journal.sqlite*"):
        shutil.copy(each, copy)
    journal.close()
    log = copy / "journal.sqlite-wal"
    data = bytearray(log.read_bytes())
    data[len(data) * 2 // 3] ^= 16
    log.write_bytes(data)
    journal = Journal(copy / "journal.sqlite")
    kept = list(journal.records("a"))
    assert 0 < len(kept) < 30 and same(kept, [some_record(step) for step in range(len(kept))])
    journal.close()


@pytest.mark.parametrize("bytes_", [b"", b"not a database, but a text of some length" * 10])
def test_other_files_are_not_journals(path, bytes_):
    path.write_bytes(bytes_)
    with pytest.raises(CatchmarkError, match="the run never started" if not bytes_ else "damaged"):
        Journal(path, writable=False)


def test_another_database_is_left_as_it_is(path):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE recipes (name TEXT)")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(CatchmarkError, match="its tables are not those of a journal"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_journal_from_the_future(path):
    filled(path, steps=2)
    database = sqlite3.connect(path)
    database.execute("UPDATE about SET value = '3' WHERE key = 'format'")
    database.execute("ALTER TABLE evaluations ADD COLUMN mood REAL")
    database.commit()
    database.close()
    before = path.read_bytes()
    for writable in (True, False):
        with pytest.raises(
            CatchmarkError, match="has journal format 3, this version of catchmark reads formats 1 and 2; use"
        ):
            Journal(path, writable)
    assert path.read_bytes() == before
    with pytest.raises(CatchmarkError):  # the refusal has let go of the lock
        Journal(path)


# ---- a full disk -------------------------------------------------------------------------------------------------


def _until_full(folder, limit):
    """Write a search until the disk refuses; prints what was announced and what came of it."""
    if limit := int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        journal = Journal(os.path.join(folder, "journal.sqlite"))
        journal.begin("a")
        for step in range(100_000):
            journal.finish_step("a", [some_record(step)], {"step": step + 1}, False, 0.0)
            print(step)
    except RunError as error:
        print(error)
        sys.exit(error.exit_code)


def _check_after_a_full_disk(path, exit_code, output):
    *announced, line = output.splitlines()
    assert exit_code == 1
    assert "could not be written" in line and "free some disk space, then resume" in line
    journal = Journal(path)  # there is space again
    count = len(announced)
    assert count > 2 and announced == [str(step) for step in range(count)]
    assert same(list(journal.records("a")), [some_record(step) for step in range(count)])
    assert journal.state("a") == {"step": count}
    journal.finish_step("a", [some_record(count)], None, True, 0.0)
    journal.close()


@pytest.mark.parametrize("limit", [60_000, 200_000])
def test_a_file_that_may_not_grow(path, limit):
    process = _start("_until_full", path.parent, limit)
    output, _ = process.communicate(timeout=PATIENCE)
    _check_after_a_full_disk(path, process.returncode, output)


def test_a_full_disk(tmp_path):
    """A real one: a file system of 1 MB in memory, which only root can mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.decode().strip()}")
    try:
        process = _start("_until_full", disk, 0)
        output, _ = process.communicate(timeout=PATIENCE)
        for each in disk.iterdir():
            shutil.copy(each, tmp_path / each.name)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    _check_after_a_full_disk(tmp_path / "journal.sqlite", process.returncode, output)


# ---- growth ------------------------------------------------------------------------------------------------------


class Constant(OneByOne):
    instant = True

    def __init__(self):
        self.space = Grid()

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        return Evaluation(sum(architecture) / 7, {"loss": 0.5}, 1.0)


def test_size_an_evaluation_does_not_grow_with_the_search(path):
    """2,000 evaluations: as many bytes for the last thousand as for the first."""
    sizes = {}

    class Measure:
        def search_began(self, search, records): ...

        def search_ended(self, search): ...

        def evaluated(self, search, records):
            if records[0].step in (499, 999, 1499, 1998):
                page, pages = (journal._execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_size", "page_count"))
                sizes[records[0].step] = page * pages

    journal = Journal(path)
    search = Search("a", RandomSearch(Grid()), [Stage("toy", Constant, 2000, True)], seed=0)
    run_search(search, journal, [Measure()])
    largest_log = os.path.getsize(f"{path}-wal")
    journal.close()
    each = os.path.getsize(path) / 2000
    print(f"{each:.0f} bytes an evaluation; log {largest_log} bytes")
    assert each < 400
    assert sizes[1998] - sizes[999] < 1.25 * (sizes[999] - sizes[499]) * 2
    assert sizes[1998] - sizes[1499] < 1.25 * (sizes[999] - sizes[499])
    assert largest_log < 10_000_000
