"""The durable record of a run: every evaluation, and the state of the agent that follows it.

One SQLite file. A step's last evaluation and the agent state after it are committed together, so a process killed at
any instant leaves either both or neither; the evaluations of an unfinished step are kept and not paid for twice.

SQLite itself notices a file that was cut short, not a value in which a bit has flipped. So every row carries a
checksum, and a journal is checked whole when it is opened.
"""

from __future__ import annotations

import io
import json
import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, RunError, one_line
from search.runs.locking import FileLock
from search.spaces.base import Architecture
from search.tasks.base import Evaluation

_FORMAT = 1
_LAST_STEP = 2**62
_HISTORY = "history"
"""The key under which an evaluation's history stands beside its metrics: most evaluations have none."""

# One table a statement, as SQLite keeps it: a schema that reads otherwise is damaged. States stand apart because they
# are large and rarely written, while a search's progress is written with every step.
_SCHEMA = {
    "about": "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL)",
    "searches": (
        "CREATE TABLE searches (name TEXT PRIMARY KEY, finished INTEGER NOT NULL, seconds REAL NOT NULL, "
        "checksum INTEGER NOT NULL)"
    ),
    "states": "CREATE TABLE states (search TEXT PRIMARY KEY, state BLOB NOT NULL, checksum INTEGER NOT NULL)",
    "evaluations": (
        "CREATE TABLE evaluations (search TEXT NOT NULL, step INTEGER NOT NULL, slot INTEGER NOT NULL, "
        "trial INTEGER NOT NULL, stage TEXT NOT NULL, architecture TEXT NOT NULL, seed INTEGER NOT NULL, score REAL, "
        "metrics TEXT NOT NULL, cost_seconds REAL NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, "
        "checksum INTEGER NOT NULL, PRIMARY KEY (search, step, slot, trial)) WITHOUT ROWID"
    ),
}

# Words of SQLite's messages about a disk that is full or broken, and about a file that can't be used now.
_DISK = ("full", "disk I/O")
_ACCESS = ("locked", "busy", "unable to open", "readonly")


@dataclass(frozen=True)
class Record:
    """One evaluation, and where in its search it happened.

    Attributes:
        step: the search's ask-tell round, from 0, counted over all its stages.
        slot: the position within what the step asked, from 0.
        trial: which of the searches that run together.
        stage: the task it was evaluated on.
        architecture: what was evaluated.
        seed: the seed it was evaluated with.
        evaluation: what that gave.
    """

    step: int
    slot: int
    trial: int
    stage: str
    architecture: Architecture
    seed: int
    evaluation: Evaluation


@dataclass(frozen=True)
class Outcome:
    """How the evaluations of a search ended.

    Attributes:
        evaluations: how many there are.
        failed: how many of them failed.
        reason: the most frequent one for that; empty where none failed.
    """

    evaluations: int
    failed: int
    reason: str


class Journal:
    """The record of one run.

    Args:
        path: the SQLite file; it is made if absent.
        writable: False opens it for reading only. One process at a time may hold a journal for writing.

    Raises:
        RunError: another process is writing it, or the disk is full.
        CatchmarkError: there is no journal, it is damaged, or a later version wrote it.
    """

    def __init__(self, path: str | Path, writable: bool = True):
        self.path = Path(path)
        if not writable and not self.path.exists():
            raise CatchmarkError(f"{self.path} does not exist: not a run folder, or the run never started")
        self._lock = FileLock(self.path.with_suffix(".lock")) if writable else None
        self._writable = writable
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        with self._explained():
            mode = "rwc" if self._writable else "ro"
            self._database = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}", isolation_level=None, uri=True
            )
            # Nothing that a schema names is called: it may be somebody else's, and is looked at only below.
            self._execute("PRAGMA trusted_schema=OFF")
            if (problem := self._execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(problem)
            if not (schema := dict(self._execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))):
                if not self._writable:
                    raise CatchmarkError(f"{self.path} is empty: the run never started")
                self._create()
            elif "about" in schema and (found := self.about("format")) not in (None, str(_FORMAT)):
                raise CatchmarkError(
                    f"{self.path} has journal format {found}, this version of catchmark reads format {_FORMAT}; "
                    "use the version that wrote it"
                )
            elif schema != _SCHEMA:
                raise sqlite3.DatabaseError("its tables are not those of a journal")
            self._check_rows()
            self._file = self._identity()
            if self._writable:
                self._execute("PRAGMA journal_mode=WAL")
                # FULL: a commit survives loss of power, not just of the process.
                self._execute("PRAGMA synchronous=FULL")

    def _create(self) -> None:
        with self._transaction():
            for statement in _SCHEMA.values():
                self._execute(statement)
            self._execute("INSERT INTO about VALUES ('format', ?1, ?2)", str(_FORMAT), _seal("format", str(_FORMAT)))

    def _check_rows(self) -> None:
        for table in _SCHEMA:
            for *values, checksum in self._execute(f"SELECT * FROM {table}"):  # noqa: S608 - our own names
                if _seal(*values) != checksum:
                    raise sqlite3.DatabaseError(f"a row of its table '{table}' does not match its checksum")

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        assert self._database is not None, "the journal is closed"
        return self._database.execute(statement, values)

    def _identity(self) -> tuple[int, int] | None:
        """Which file lies at the path, if one does."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _check_place(self) -> None:
        """SQLite would go on writing to a file that nobody finds any more, or to whatever has its number now."""
        if self._lock is not None and not self._lock.held:
            raise RunError(
                f"{self.path} was closed by the evaluation that was under way: what was evaluated before is safe in it"
            )
        if self._identity() != self._file:
            raise RunError(
                f"{self.path} was removed, moved or replaced while the run wrote it; what was evaluated is where it "
                "went, if anywhere"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into one line that says what to do."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # our own mistake, not the file's
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: damage quoted in SQLite's message
            cause = one_line(error)[:200]
            if any(word in cause for word in _DISK):
                raise RunError(
                    f"{self.path} could not be written ({cause}): free some disk space, then resume the run; "
                    "everything up to the last finished evaluation is safe"
                ) from error
            if any(word in cause for word in _ACCESS):
                raise RunError(
                    f"{self.path} could not be used ({cause}): see that the folder can be written and that no other "
                    "program holds the file, then resume the run"
                ) from error
            raise CatchmarkError(
                f"{self.path} is damaged ({cause}); restore it from a copy, or start the run anew"
            ) from error

    def close(self) -> None:
        """Let go of the file, which is then a single one that can be read from a read-only folder too."""
        if self._database is not None:
            if self._writable and self._lock is not None and self._lock.held:
                with suppress(sqlite3.Error):  # someone is reading it, or the disk is full: what is committed stays
                    self._execute("PRAGMA journal_mode=DELETE")
            with suppress(sqlite3.Error):  # its files may have been closed before
                self._database.close()
            self._database = None
        if self._lock is not None:
            self._lock.release()

    # ---- facts about the run ---------------------------------------------------------------------------------------

    def about(self, key: str) -> str | None:
        """A stored fact about the run, or None."""
        with self._explained():
            row = self._execute("SELECT value FROM about WHERE key = ?", key).fetchone()
        return None if row is None else row[0]

    def set_about(self, key: str, value: str) -> None:
        """Store a fact about the run."""
        with self._explained():
            self._execute("INSERT OR REPLACE INTO about VALUES (?, ?, ?)", key, value, _seal(key, value))

    # ---- searches --------------------------------------------------------------------------------------------------

    def searches(self) -> list[str]:
        """Names of the searches that have begun, in order of their names."""
        with self._explained():
            return [row[0] for row in self._execute("SELECT name FROM searches ORDER BY name")]

    def begin(self, search: str) -> None:
        """A search begins; without effect where it has begun before."""
        with self._explained():
            self._execute("INSERT OR IGNORE INTO searches VALUES (?, 0, 0.0, ?)", search, _seal(search, 0, 0.0))

    def progress(self, search: str) -> tuple[bool, float]:
        """Whether the search is finished, and the seconds spent in it."""
        with self._explained():
            row = self._execute("SELECT finished, seconds FROM searches WHERE name = ?", search).fetchone()
        return (False, 0.0) if row is None else (bool(row[0]), row[1])

    def outcome(self, search: str) -> Outcome:
        """How many evaluations of a search there are, and how they ended."""
        with self._explained():
            count = self._execute("SELECT COUNT(*) FROM evaluations WHERE search = ?", search).fetchone()[0]
            reasons = self._execute(
                "SELECT reason, COUNT(*) FROM evaluations WHERE search = ? AND status = 'failed' GROUP BY reason "
                "ORDER BY 2 DESC, 1",
                search,
            ).fetchall()
        return Outcome(count, sum(times for _, times in reasons), reasons[0][0] if reasons else "")

    def state(self, search: str) -> dict[str, Any] | None:
        """What was last saved with `finish_step`, or None."""
        with self._explained():
            row = self._execute("SELECT state FROM states WHERE search = ?", search).fetchone()
        return None if row is None else _from_bytes(row[0])

    def finish_step(
        self, search: str, records: Iterable[Record], state: dict[str, Any] | None, finished: bool, seconds: float
    ) -> None:
        """Commit a step's remaining evaluations together with the state that follows it.

        Args:
            search: which search.
            records: evaluations of the step that `add` has not stored yet.
            state: tensors and plain values, enough to go on from here. Without one, the last one saved stays, and the
                steps since then are replayed on resume; a finished search keeps none.
            finished: whether it was the last step.
            seconds: time spent since the last call.
        """
        blob = None if state is None else _to_bytes(state)
        with self._transaction():
            self._insert(search, records)
            total = self.progress(search)[1] + seconds
            self._execute(
                "UPDATE searches SET finished = ?, seconds = ?, checksum = ? WHERE name = ?",
                int(finished),
                total,
                _seal(search, int(finished), total),
                search,
            )
            if blob is not None:
                self._execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", search, blob, _seal(search, blob))
            elif finished:
                self._execute("DELETE FROM states WHERE search = ?", search)

    def add(self, search: str, records: Iterable[Record]) -> None:
        """Commit evaluations of a step that is still going on."""
        with self._transaction():
            self._insert(search, records)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._file is not None:
            self._check_place()
        with self._explained():
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                if self._database is not None and self._database.in_transaction:
                    self._execute("ROLLBACK")
                raise

    def _insert(self, search: str, records: Iterable[Record]) -> None:
        for record in records:
            evaluation = record.evaluation
            row = (
                search,
                record.step,
                record.slot,
                record.trial,
                record.stage,
                json.dumps(record.architecture),
                record.seed,
                # SQLite keeps no negative zero; adding zero makes it a positive one, for the checksum too.
                None if math.isnan(evaluation.score) else float(evaluation.score) + 0.0,
                json.dumps(evaluation.metrics | ({_HISTORY: evaluation.history} if evaluation.history else {})),
                float(evaluation.cost_seconds) + 0.0,
                evaluation.status,
                evaluation.reason,
            )
            self._execute("INSERT INTO evaluations VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", *row, _seal(*row))

    def records(self, search: str, step: int | None = None) -> Iterator[Record]:
        """Evaluations of a search in the order (step, slot, trial), of one step or of all."""
        with self._explained():
            rows = self._execute(
                "SELECT step, slot, trial, stage, architecture, seed, score, metrics, cost_seconds, status, reason "
                "FROM evaluations WHERE search = ? AND step BETWEEN ? AND ? ORDER BY step, slot, trial",
                search,
                0 if step is None else step,
                _LAST_STEP if step is None else step,
            )
            for row in rows:
                try:
                    record = _record(*row)
                except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
                    raise sqlite3.DatabaseError(f"an evaluation of '{search}' does not hold what it must") from error
                yield record


def _record(
    at: int,
    slot: int,
    trial: int,
    stage: str,
    architecture: str,
    seed: int,
    score: float | None,
    metrics: str,
    cost: float,
    status: str,
    reason: str,
) -> Record:
    """The evaluation of a row; SQLite keeps values of any kind in any column."""
    # Earlier versions kept metrics that are infinite; what is not a number was not measured.
    values = json.loads(metrics, parse_constant=lambda _: math.nan)
    # A task may have a metric of that name, which is a number.
    history = values.pop(_HISTORY) if isinstance(values.get(_HISTORY), list) else []
    for number in (score or 0.0, cost, *values.values(), *(each for epoch in history for each in epoch.values())):
        math.isfinite(number)  # raises a TypeError where it is none
    choices = tuple(json.loads(architecture))
    if status not in ("ok", "failed") or not all(isinstance(each, int) for each in (at, slot, trial, seed, *choices)):
        raise ValueError
    evaluation = Evaluation(math.nan if score is None else score, values, cost, status, str(reason), history)
    return Record(at, slot, trial, str(stage), choices, seed, evaluation)


def _seal(*values: Any) -> int:
    """A checksum of a row."""
    checksum = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        checksum = zlib.crc32(data + b"\0", checksum)
    return checksum


def _to_bytes(state: dict[str, Any]) -> bytes:
    import torch

    blob = io.BytesIO()
    torch.save(state, blob)
    return blob.getvalue()


def _from_bytes(blob: bytes) -> dict[str, Any]:
    import torch

    return torch.load(io.BytesIO(blob), weights_only=True)
