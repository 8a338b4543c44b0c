"""The contract of an executor: evaluations go in, and come out as they finish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

from search.evaluation import Evaluation, Proposal
from search.tasks.base import Task

Ticket = tuple[int, int]
"""What an evaluation is known by while it is under way: the loop's own numbers, handed back with the result."""


class Executor(ABC):
    """Where a search's evaluations run, ``workers`` at a time.

    An executor evaluates on one task at a time. Tasks whose evaluations are look-ups (`Task.instant`) never reach it:
    their way to a worker would take longer than they do.

    A recipe names one under ``executor``. It is built for a report or a dry run too, so it starts nothing before
    `begin`.
    """

    workers: int
    """Evaluations that run at a time."""

    def open(self) -> None:  # noqa: B027 - most have nothing to refuse
        """A run begins: refuse what can't work, before the first evaluation is paid for.

        Raises:
            CatchmarkError: something is missing that the user can install or mend.
        """

    @abstractmethod
    def begin(self, task: Task) -> None:
        """Evaluate on this task from now on; what is still under way is given up."""

    @abstractmethod
    def submit(self, ticket: Ticket, proposal: Proposal) -> None:
        """Take an evaluation. One beyond the number of workers waits for its turn; turns come in order."""

    @abstractmethod
    def wait(self) -> tuple[Ticket, Evaluation]:
        """The next evaluation to finish; to be called only while one is under way.

        An exception in the task, or the death of what it ran on, is a failed evaluation.

        Raises:
            CatchmarkError: the task said so itself, or the executor can't go on.
        """

    @abstractmethod
    def drop(self) -> None:
        """Give up what is under way."""

    def close(self) -> None:
        """The run is over, for good or ill: leave nothing behind."""
        self.drop()

    def __enter__(self) -> Executor:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
