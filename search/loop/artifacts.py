"""What evaluations leave in the run's folder, and which of it a later one inherits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from search.errors import RunError
from search.evaluation import Architecture, Evaluation, Proposal
from search.runs.journal import Record
from search.tasks.base import Task

FOLDER = "artifacts"
"""Where artifacts lie below the run's folder: a folder for each search."""


class Artifacts:
    """The artifacts of one search.

    An evaluation's place is a function of its trial and its number in order of asking, and is empty when it begins:
    what one that was interrupted has left is taken for nothing.

    Args:
        run: the run's folder.
        search: the search's name.
    """

    def __init__(self, run: Path, search: str):
        self._run, self._search = run, search
        self._place = run.joinpath(FOLDER, *search.split("/"))
        # By trial and architecture, what the latest evaluation behind the agent's state has left.
        self._latest: dict[tuple[int, Architecture], str] = {}

    def remember(self, record: Record) -> None:
        """An evaluation was told: what it left can be inherited from now on. To be called in order of telling."""
        if record.evaluation.artifact is not None:
            self._latest[record.trial, record.architecture] = record.evaluation.artifact

    def of_parent(self, task: Task, trial: int, proposal: Proposal) -> str | None:
        """What a proposal inherits, a path below the run's folder; None where it names no parent.

        None too where the task keeps no artifacts: a table needs none to say what going on from a parent gives.

        Raises:
            RunError: no evaluation of the parent in this trial has left anything.
        """
        if proposal.parent is None or not task.keeps_artifact:
            return None
        if (trial, proposal.parent) not in self._latest:
            raise RunError(
                f"{self._search}: the agent asks in trial {trial} for the weights of {proposal.parent}, of which no "
                "evaluation that it was told of has left an artifact"
            )
        return self._latest[trial, proposal.parent]

    def place(self, task: Task, proposal: Proposal, trial: int, index: int, inherited: str | None) -> Proposal:
        """The proposal as the task sees it, with places on this machine.

        Args:
            task: evaluates it.
            proposal: what was asked.
            trial: which.
            index: its number in order of asking, within the trial.
            inherited: as `of_parent` says.

        Raises:
            RunError: what it inherits is gone.
        """
        if inherited is None and not task.keeps_artifact:
            return proposal
        inherit = None if inherited is None else (self._run / inherited).absolute()
        if inherit is not None and not inherit.exists():
            raise RunError(f"{self._search}: {inherit} is gone, whose weights an evaluation is to inherit")
        leave = None
        if task.keeps_artifact:
            leave = (self._place / f"{trial}-{index}").absolute()
            _remove(leave)
            leave.parent.mkdir(parents=True, exist_ok=True)
        return replace(proposal, inherit=_text(inherit), leave=_text(leave))

    def settle(self, given: Proposal, evaluation: Evaluation) -> Evaluation:
        """The evaluation with its artifact as a path below the run's folder.

        Args:
            given: what `place` made, and the task has answered.
            evaluation: the answer.

        Raises:
            RunError: the artifact is not there, or lies elsewhere.
        """
        if evaluation.artifact is None:
            return evaluation
        left = Path(os.path.abspath(evaluation.artifact))
        if given.leave is None or not left.is_relative_to(given.leave) or not left.exists():
            where = "its keeps_artifact is not set" if given.leave is None else f"it may leave one at {given.leave}"
            raise RunError(f"{self._search}: the task names an artifact, '{evaluation.artifact}', but {where}")
        for path in [left, *left.rglob("*")]:
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())  # before the journal says that it is there
        return replace(evaluation, artifact=left.relative_to(self._run.absolute()).as_posix())

    def tidy(self, records: Iterable[Record]) -> None:
        """The search has ended: remove what no evaluation in the journal has left."""
        if not self._place.is_dir():
            return
        kept = {(self._run / each.evaluation.artifact) for each in records if each.evaluation.artifact is not None}
        for path in self._place.iterdir():
            if not any(each.is_relative_to(path) for each in kept):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
