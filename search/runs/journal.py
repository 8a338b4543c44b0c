"""The durable record of a run: every evaluation, and the state of the agent that follows it.

One SQLite file. A step's last evaluation and the agent state after it are committed together, so a process killed at
any instant leaves either both or neither; the evaluations of an unfinished step are kept and not paid for twice.

SQLite itself notices a file that was cut short, not a value in which a bit has flipped. So every row carries a
checksum, and a journal is checked whole when it is opened.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, RunError, one_line
from search.runs.journal_format import COLUMNS, FORMAT, SCHEMAS, Record, insert, migrate, seal
from search.runs.locking import FileLock

_LAST_STEP = 2**62

# Words of SQLite's messages about a disk that is full or broken, and about a file that can't be used now.
_DISK = ("full", "disk I/O")
_ACCESS = ("locked", "busy", "unable to open", "readonly")


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

    A file of an earlier format becomes one of today's when it is opened for writing; for reading it stays as it is.

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
        self._format = FORMAT
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
            else:
                self._format = self._format_of(schema)
            self._check_rows()
            self._file = self._identity()
            if self._writable:
                self._execute("PRAGMA journal_mode=WAL")
                # FULL: a commit survives loss of power, not just of the process.
                self._execute("PRAGMA synchronous=FULL")
                if self._format < FORMAT:
                    with self._transaction():
                        migrate(self._execute)
                    self._format = FORMAT

    def _format_of(self, schema: dict[str, str]) -> int:
        """The format of a file with these tables."""
        known = {str(number): tables for number, tables in SCHEMAS.items()}
        found = self.about("format") if "about" in schema else None
        if found is not None and found not in known:
            raise CatchmarkError(
                f"{self.path} has journal format {found}, this version of catchmark reads formats {' and '.join(known)}"
                "; use the version that wrote it"
            )
        for number, tables in known.items():
            if schema == tables and found in (None, number):
                return int(number)
        raise sqlite3.DatabaseError("its tables are not those of a journal")

    def _create(self) -> None:
        with self._transaction():
            for statement in SCHEMAS[FORMAT].values():
                self._execute(statement)
            self._execute("INSERT INTO about VALUES ('format', ?1, ?2)", str(FORMAT), seal("format", str(FORMAT)))

    def _check_rows(self) -> None:
        for table in SCHEMAS[self._format]:
            for *values, checksum in self._execute(f"SELECT * FROM {table}"):  # noqa: S608 - our own names
                if seal(*values) != checksum:
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
            self._execute("INSERT OR REPLACE INTO about VALUES (?, ?, ?)", key, value, seal(key, value))

    # ---- searches --------------------------------------------------------------------------------------------------

    def searches(self) -> list[str]:
        """Names of the searches that have begun, in order of their names."""
        with self._explained():
            return [row[0] for row in self._execute("SELECT name FROM searches ORDER BY name")]

    def begin(self, search: str) -> None:
        """A search begins; without effect where it has begun before."""
        with self._explained():
            self._execute("INSERT OR IGNORE INTO searches VALUES (?, 0, 0.0, ?)", search, seal(search, 0, 0.0))

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
        return None if row is None else from_bytes(row[0])

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
        blob = None if state is None else to_bytes(state)
        with self._transaction():
            self._insert(search, records)
            total = self.progress(search)[1] + seconds
            self._execute(
                "UPDATE searches SET finished = ?, seconds = ?, checksum = ? WHERE name = ?",
                int(finished),
                total,
                seal(search, int(finished), total),
                search,
            )
            if blob is not None:
                self._execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", search, blob, seal(search, blob))
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
            insert(self._execute, record.row(search))

    def records(self, search: str, step: int | None = None) -> Iterator[Record]:
        """Evaluations of a search in the order (step, slot, trial), of one step or of all."""
        with self._explained():
            rows = self._execute(
                f"SELECT {COLUMNS[self._format]} FROM evaluations "  # noqa: S608 - our own names
                "WHERE search = ? AND step BETWEEN ? AND ? ORDER BY step, slot, trial",
                search,
                0 if step is None else step,
                _LAST_STEP if step is None else step,
            )
            for row in rows:
                try:
                    record = Record.from_row(*row)
                except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
                    raise sqlite3.DatabaseError(f"an evaluation of '{search}' does not hold what it must") from error
                yield record


def to_bytes(state: dict[str, Any]) -> bytes:
    """A state as a journal keeps it."""
    import torch

    blob = io.BytesIO()
    torch.save(state, blob)
    return blob.getvalue()


def from_bytes(blob: bytes) -> dict[str, Any]:
    """A state as it was kept: tensors and plain values, nothing else."""
    import torch

    return torch.load(io.BytesIO(blob), weights_only=True)
