"""How a journal's tables are laid out, in every format there has been, and how an earlier one becomes today's."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from search.evaluation import Architecture, Evaluation, Proposal

FORMAT = 2
"""The format that is written."""
_HISTORY = "history"
"""The key under which an evaluation's history stands beside its metrics: most evaluations have none."""

_KEY = "search TEXT NOT NULL, step INTEGER NOT NULL, slot INTEGER NOT NULL, trial INTEGER NOT NULL, stage TEXT NOT NULL"
_TABLES = {
    "about": "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL)",
    "searches": (
        "CREATE TABLE searches (name TEXT PRIMARY KEY, finished INTEGER NOT NULL, seconds REAL NOT NULL, "
        "checksum INTEGER NOT NULL)"
    ),
    # States stand apart because they are large and rarely written, while a search's progress is with every step.
    "states": "CREATE TABLE states (search TEXT PRIMARY KEY, state BLOB NOT NULL, checksum INTEGER NOT NULL)",
}
# One table a statement, as SQLite keeps it: a schema that reads otherwise is damaged.
SCHEMAS: dict[int, dict[str, str]] = {
    1: _TABLES
    | {
        "evaluations": (
            f"CREATE TABLE evaluations ({_KEY}, architecture TEXT NOT NULL, seed INTEGER NOT NULL, score REAL, "
            "metrics TEXT NOT NULL, cost_seconds REAL NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, "
            "checksum INTEGER NOT NULL, PRIMARY KEY (search, step, slot, trial)) WITHOUT ROWID"
        )
    },
    2: _TABLES
    | {
        "evaluations": (
            f"CREATE TABLE evaluations ({_KEY}, architecture TEXT NOT NULL, seed INTEGER NOT NULL, "
            "fidelity TEXT NOT NULL, parent TEXT, stop_below REAL, score REAL, metrics TEXT NOT NULL, "
            "cost_seconds REAL NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, artifact TEXT, "
            "attributes TEXT NOT NULL, violation REAL NOT NULL, checksum INTEGER NOT NULL, "
            "PRIMARY KEY (search, step, slot, trial)) WITHOUT ROWID"
        )
    },
}
"""Every table by name and format."""
_PLACE = "step, slot, trial, stage, architecture, seed"
_RESULT = "score, metrics, cost_seconds, status, reason"
COLUMNS = {
    1: f"{_PLACE}, '{{}}', NULL, NULL, {_RESULT}, NULL, '{{}}', 0.0",
    2: f"{_PLACE}, fidelity, parent, stop_below, {_RESULT}, artifact, attributes, violation",
}
"""What `Record.from_row` takes, as it is selected from each format."""


@dataclass(frozen=True)
class Record:
    """One evaluation, and where in its search it happened.

    Attributes:
        step: the search's ask-tell round, from 0, counted over all its stages.
        slot: the position within what the step asked, from 0.
        trial: which of the searches that run together.
        stage: the task it was evaluated on.
        proposal: what was asked, without the places that belong to this machine (`Proposal.inherit`, `leave`).
        evaluation: what that gave.
    """

    step: int
    slot: int
    trial: int
    stage: str
    proposal: Proposal
    evaluation: Evaluation

    @property
    def architecture(self) -> Architecture:
        """What was evaluated."""
        return self.proposal.architecture

    @property
    def seed(self) -> int:
        """The seed it was evaluated with."""
        return self.proposal.seed

    @property
    def full(self) -> bool:
        """Whether it asked for no fidelity: else its score is that of less than a full evaluation."""
        return not self.proposal.fidelity

    @property
    def can_be_best(self) -> bool:
        """Whether it is a full evaluation that succeeded and keeps every hard limit: only then it can be the best."""
        return self.full and self.evaluation.feasible

    def row(self, search: str) -> tuple[Any, ...]:
        """The row of an evaluation of a search, but for its checksum."""
        proposal, evaluation = self.proposal, self.evaluation
        return (
            search,
            self.step,
            self.slot,
            self.trial,
            self.stage,
            json.dumps(proposal.architecture),
            proposal.seed,
            json.dumps(dict(proposal.fidelity)) if proposal.fidelity else "{}",
            None if proposal.parent is None else json.dumps(proposal.parent),
            None if proposal.stop_below is None else float(proposal.stop_below) + 0.0,
            # SQLite keeps no negative zero; adding zero makes it a positive one, for the checksum too.
            None if math.isnan(evaluation.score) else float(evaluation.score) + 0.0,
            json.dumps(evaluation.metrics | ({_HISTORY: evaluation.history} if evaluation.history else {})),
            float(evaluation.cost_seconds) + 0.0,
            evaluation.status,
            evaluation.reason,
            evaluation.artifact,
            json.dumps(evaluation.attributes) if evaluation.attributes else "{}",
            float(evaluation.violation) + 0.0,
        )

    @classmethod
    def from_row(
        cls,
        step: int,
        slot: int,
        trial: int,
        stage: str,
        architecture: str,
        seed: int,
        fidelity: str,
        parent: str | None,
        stop_below: float | None,
        score: float | None,
        metrics: str,
        cost: float,
        status: str,
        reason: str,
        artifact: str | None,
        attributes: str,
        violation: float,
    ) -> Record:
        """The evaluation of a row; SQLite keeps values of any kind in any column.

        Raises:
            ValueError: a value is none that `row` writes; others such as TypeError too.
        """
        values, wanted, known = _numbers(metrics), _numbers(fidelity), _numbers(attributes)
        # A task may have a metric of that name, which is a number.
        history = values.pop(_HISTORY) if isinstance(values.get(_HISTORY), list) else []
        epochs = [each for epoch in history for each in epoch.values()]
        single = (score or 0.0, stop_below or 0.0, cost, violation)
        for number in (*single, *values.values(), *wanted.values(), *known.values(), *epochs):
            math.isfinite(number)  # raises a TypeError where it is none
        choices, inherited = tuple(json.loads(architecture)), None if parent is None else tuple(json.loads(parent))
        whole = (step, slot, trial, seed, *choices, *(inherited or ()))
        if status not in ("ok", "failed") or not all(isinstance(each, int) for each in whole):
            raise ValueError("no such status, or not a whole number")
        if artifact is not None and not is_below(artifact):
            raise ValueError("an artifact outside of the run's folder")
        return cls(
            step,
            slot,
            trial,
            str(stage),
            Proposal(choices, seed, wanted, inherited, stop_below),
            Evaluation(
                math.nan if score is None else score,
                values,
                cost,
                status,
                str(reason),
                history,
                artifact,
                known,
                violation,
            ),
        )


def is_below(path: str) -> bool:
    """Whether a path leads to something below the folder that it is relative to, by its words."""
    words = PurePosixPath(path)
    return bool(words.parts) and not words.is_absolute() and ".." not in words.parts and "\0" not in path


def _numbers(text: str) -> dict[str, Any]:
    """Numbers by name; what is not one was not measured. Earlier versions kept metrics that are infinite."""
    return {} if text == "{}" else json.loads(text, parse_constant=lambda _: math.nan)


def seal(*values: Any) -> int:
    """A checksum of a row."""
    checksum = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        checksum = zlib.crc32(data + b"\0", checksum)
    return checksum


def migrate(execute: Callable[..., Any]) -> None:
    """Turn format 1 into format 2; to be called within a transaction, so that a kill leaves the one or the other.

    Args:
        execute: carries out a statement with its values.
    """
    execute("ALTER TABLE evaluations RENAME TO evaluations_1")
    execute(SCHEMAS[2]["evaluations"])
    for *row, _ in execute("SELECT * FROM evaluations_1"):
        insert(execute, (*row[:7], "{}", None, None, *row[7:], None, "{}", 0.0))
    execute("DROP TABLE evaluations_1")
    execute("INSERT OR REPLACE INTO about VALUES ('format', ?, ?)", "2", seal("format", "2"))


def insert(execute: Callable[..., Any], row: tuple[Any, ...]) -> None:
    """Insert an evaluation's row with its checksum."""
    execute("INSERT INTO evaluations VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", *row, seal(*row))
