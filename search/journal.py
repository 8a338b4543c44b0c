"""The durable record of a run: every evaluation, and the state of the agent that follows it.

One SQLite file. A step's last evaluation and the agent state after it are committed together, so a process killed at
any instant leaves either both or neither; the evaluations of an unfinished step are kept and not paid for twice.
"""

from __future__ import annotations

import fcntl
import io
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, RunError
from search.spaces.base import Architecture
from search.tasks.base import Evaluation

_FORMAT = 1
_LAST_STEP = 2**62

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS searches (
    name TEXT PRIMARY KEY, finished INTEGER NOT NULL, seconds REAL NOT NULL, state BLOB);
CREATE TABLE IF NOT EXISTS evaluations (
    search TEXT NOT NULL, step INTEGER NOT NULL, slot INTEGER NOT NULL, trial INTEGER NOT NULL,
    stage TEXT NOT NULL, architecture TEXT NOT NULL, seed INTEGER NOT NULL, score REAL, metrics TEXT NOT NULL,
    cost_seconds REAL NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (search, step, slot, trial)) WITHOUT ROWID;
"""


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


class Journal:
    """The record of one run.

    Args:
        path: the SQLite file; it is made if absent.
        writable: False opens it for reading only. One process at a time may hold a journal for writing.

    Raises:
        CatchmarkError: another process is writing it, or the file is damaged.
    """

    def __init__(self, path: str | Path, writable: bool = True):
        self.path = Path(path)
        self._lock: io.TextIOWrapper | None = None
        if writable:
            self._lock = open(self.path.with_suffix(".lock"), "w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._lock.close()
                raise RunError(
                    f"{self.path.parent} is being written by another process; wait for it, or stop it first"
                ) from None
        elif not self.path.exists():
            raise CatchmarkError(f"{self.path} does not exist: not a run folder, or the run never started")
        with self._explained():
            target = str(self.path) if writable else f"file:{self.path}?mode=ro"
            self._database = sqlite3.connect(target, isolation_level=None, uri=not writable)
            if writable:
                self._database.execute("PRAGMA journal_mode=WAL")
                # FULL: a commit survives loss of power, not just of the process.
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.executescript(_SCHEMA)
                self._database.execute("INSERT OR IGNORE INTO about VALUES ('format', ?)", (str(_FORMAT),))
            if (problem := self._database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(problem)
            found = self.about("format")
        if found != str(_FORMAT):
            raise CatchmarkError(f"{self.path} has journal format {found}, this version reads {_FORMAT}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into one line that says what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error) or "disk I/O" in str(error):
                raise RunError(
                    f"{self.path} could not be written ({error}): free some disk space, then resume the run; "
                    "everything up to the last finished evaluation is safe"
                ) from error
            raise
        except sqlite3.DatabaseError as error:
            raise CatchmarkError(
                f"{self.path} is damaged ({error}); restore it from a copy, or start the run anew"
            ) from error

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
        if self._lock is not None:
            self._lock.close()

    # ---- facts about the run ---------------------------------------------------------------------------------------

    def about(self, key: str) -> str | None:
        """A stored fact about the run, or None."""
        row = self._database.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def set_about(self, key: str, value: str) -> None:
        """Store a fact about the run."""
        with self._explained():
            self._database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))

    # ---- searches --------------------------------------------------------------------------------------------------

    def searches(self) -> list[str]:
        """Names of the searches that have begun, in order of their names."""
        return [row[0] for row in self._database.execute("SELECT name FROM searches ORDER BY name")]

    def begin(self, search: str) -> None:
        """A search begins; without effect where it has begun before."""
        with self._explained():
            self._database.execute("INSERT OR IGNORE INTO searches VALUES (?, 0, 0, NULL)", (search,))

    def progress(self, search: str) -> tuple[bool, float]:
        """Whether the search is finished, and the seconds spent in it."""
        row = self._database.execute("SELECT finished, seconds FROM searches WHERE name = ?", (search,)).fetchone()
        return (False, 0.0) if row is None else (bool(row[0]), row[1])

    def state(self, search: str) -> dict[str, Any] | None:
        """What was last saved with `finish_step`, or None."""
        row = self._database.execute("SELECT state FROM searches WHERE name = ?", (search,)).fetchone()
        if row is None or row[0] is None:
            return None
        return _from_bytes(row[0])

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
            self._database.execute(
                "UPDATE searches SET finished = ?, seconds = seconds + ? WHERE name = ?",
                (int(finished), seconds, search),
            )
            if blob is not None or finished:
                self._database.execute("UPDATE searches SET state = ? WHERE name = ?", (blob, search))

    def add(self, search: str, records: Iterable[Record]) -> None:
        """Commit evaluations of a step that is still going on."""
        with self._transaction():
            self._insert(search, records)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _insert(self, search: str, records: Iterable[Record]) -> None:
        self._database.executemany(
            "INSERT INTO evaluations VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                (
                    search,
                    record.step,
                    record.slot,
                    record.trial,
                    record.stage,
                    json.dumps(record.architecture),
                    record.seed,
                    None if math.isnan(record.evaluation.score) else record.evaluation.score,
                    json.dumps(record.evaluation.metrics),
                    record.evaluation.cost_seconds,
                    record.evaluation.status,
                    record.evaluation.reason,
                )
                for record in records
            ),
        )

    def records(self, search: str, step: int | None = None) -> Iterator[Record]:
        """Evaluations of a search in the order (step, slot, trial), of one step or of all."""
        rows = self._database.execute(
            "SELECT step, slot, trial, stage, architecture, seed, score, metrics, cost_seconds, status, reason "
            "FROM evaluations WHERE search = ? AND step BETWEEN ? AND ? ORDER BY step, slot, trial",
            (search, 0 if step is None else step, _LAST_STEP if step is None else step),
        )
        for at, slot, trial, stage, architecture, seed, score, metrics, cost, status, reason in rows:
            evaluation = Evaluation(math.nan if score is None else score, json.loads(metrics), cost, status, reason)
            yield Record(at, slot, trial, stage, tuple(json.loads(architecture)), seed, evaluation)


def _to_bytes(state: dict[str, Any]) -> bytes:
    import torch

    blob = io.BytesIO()
    torch.save(state, blob)
    return blob.getvalue()


def _from_bytes(blob: bytes) -> dict[str, Any]:
    import torch

    return torch.load(io.BytesIO(blob), weights_only=True)
