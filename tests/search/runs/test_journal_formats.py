"""A journal of an earlier version: read as it is, and made one of today's in a single stroke."""

import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from search.errors import CatchmarkError
from search.evaluation import Evaluation, Proposal
from search.runs.journal import Journal
from search.runs.journal_format import FORMAT, SCHEMAS, Record, seal

EARLIER = Path(__file__).parents[1] / "recipes" / "earlier_runs"
"""Runs that the version before wrote: format 1."""


@pytest.fixture(params=["search", "supernets"])
def path(request, tmp_path):
    return Path(shutil.copy(EARLIER / request.param / "journal.sqlite", tmp_path))


def content(path):
    """All that a journal tells, and its format."""
    journal = Journal(path, writable=False)
    try:
        told = [(name, list(journal.records(name)), journal.progress(name)) for name in journal.searches()]
        states = [journal.state(name) is not None for name in journal.searches()]
        return repr((told, states, journal.about("recipe"))), journal.about("format")
    finally:
        journal.close()


def tables(path):
    database = sqlite3.connect(path)
    try:
        return dict(database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    finally:
        database.close()


def test_for_reading_it_stays_as_it_is(path):
    before = path.read_bytes()
    told, number = content(path)
    assert number == "1" and told.count("Record(") > 10 and "violation=0.0" in told and "fidelity={}" in told
    beside = {each.name.removeprefix(path.name) for each in path.parent.iterdir()}
    assert path.read_bytes() == before and beside <= {"", "-shm", "-wal"}, "SQLite reads it by way of files of its own"


def test_for_writing_it_becomes_one_of_today(path):
    told, _ = content(path)
    Journal(path).close()
    assert content(path) == (told, str(FORMAT))
    assert tables(path) == SCHEMAS[FORMAT]
    Journal(path).close()  # a second time there is nothing to do, and every checksum is right
    assert content(path) == (told, str(FORMAT))


def _migrate(path, dies_at):
    """Open it for writing, and die before so many statements of the migration, with much of it on the disk."""
    plain, count = Journal._execute, 0

    def execute(self, statement, *values):
        nonlocal count
        if statement.startswith("BEGIN"):
            plain(self, "PRAGMA cache_size=1")
        if count or statement.startswith("BEGIN"):
            count += 1
        if count == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, statement, *values)

    Journal._execute = execute
    Journal(path).close()


def test_killed_on_the_way_it_is_of_one_format_or_the_other(path):
    """Before every statement of the migration, the last one being the commit, and after it."""
    told, _ = content(path)
    formats = []
    while formats[-2:] != ["2", "2"]:
        copy = path.parent / str(len(formats))
        copy.mkdir()
        shutil.copy(path, copy)
        if (child := os.fork()) == 0:
            try:
                _migrate(copy / path.name, dies_at=len(formats) + 1)
            finally:
                os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        same, number = content(copy / path.name)
        assert same == told and killed == (number == "1" or "2" not in formats)
        formats.append(number)
        assert tables(copy / path.name) == SCHEMAS[int(number)]
        Journal(copy / path.name).close()
        assert content(copy / path.name) == (told, "2")
    assert formats.count("1") > 15 and formats == sorted(formats)


@pytest.mark.parametrize("number", ["2", "3"])
def test_a_format_that_its_tables_are_not_of(path, number):
    database = sqlite3.connect(path)
    database.execute("UPDATE about SET value = ?, checksum = ? WHERE key = 'format'", (number, seal("format", number)))
    database.commit()
    database.close()
    for writable in (False, True):
        with pytest.raises(CatchmarkError, match=r"not those of a journal|has journal format 3"):
            Journal(path, writable)
    assert tables(path) == SCHEMAS[1]


@pytest.mark.parametrize("artifact", ["/etc/passwd", "../outside", "artifacts/../../outside", ""])
def test_an_artifact_outside_of_the_folder_is_damage(path, artifact):
    """A stranger's journal must not make a resumed run read whatever it likes."""
    journal = Journal(path)
    name = journal.searches()[0]
    journal.add(name, [Record(10**6, 0, 0, "", Proposal((0,)), Evaluation(1.0, artifact=artifact))])
    with pytest.raises(CatchmarkError, match="does not hold what it must"):
        list(journal.records(name))
    journal.close()
