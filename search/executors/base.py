"""The contract of an executor: evaluations, or jobs of other work, go in, and come out as they finish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from search.errors import CatchmarkError
from search.evaluation import Proposal
from search.tasks.base import Task

Ticket = tuple[int, int]
"""What an evaluation is known by while it is under way: the loop's own numbers, handed back with the result."""


Say = Callable[[Any], None]
"""How a job says something while it is under way, in plain values."""
Hear = Callable[[Ticket, Any], None]
"""Hears what a job says, in the process that waits for it."""


class Work(ABC):
    """What workers do for a run besides evaluating architectures: each holds it, and does one job of it after another.

    A job whose worker dies is begun again: what it keeps, it keeps in files.
    """

    @abstractmethod
    def do(self, job: Any, say: Say) -> Any:
        """Do a job.

        Args:
            job: plain values.
            say: hands on what the run should hear meanwhile.
        """

    @abstractmethod
    def trainers(self) -> list[Mapping[str, Any]]:
        """Arguments of the Lightning Trainers that a job makes: they say how many devices it takes."""


class Executor(ABC):
    """Where a run's evaluations and trainings happen, ``workers`` at a time.

    An executor evaluates on one task at a time. Tasks whose evaluations are look-ups (`Task.instant`) never reach it:
    their way to a worker would take longer than they do.

    A recipe names one under ``executor``. It is built for a report or a dry run too, so it starts nothing before
    `begin`.
    """

    workers: int
    """Evaluations that run at a time."""
    starts_processes: bool = False
    """Whether a worker starts by itself the processes that train a network on several devices."""

    def open(self) -> None:  # noqa: B027 - most have nothing to refuse
        """A run begins: refuse what can't work, before the first evaluation is paid for.

        Raises:
            CatchmarkError: something is missing that the user can install or mend.
        """

    @abstractmethod
    def begin(self, task: Task) -> None:
        """Evaluate on this task from now on; what is still under way is given up."""

    def begin_work(self, work: Work, hear: Hear) -> None:
        """Do jobs of this work from now on; what is still under way is given up.

        Raises:
            CatchmarkError: the executor knows evaluations alone.
        """
        raise CatchmarkError(f"executor: {type(self).__name__} evaluates architectures, and can't train supernets")

    def take(self, ticket: Ticket, job: Any) -> None:
        """Take a job of the work that has begun, as `submit` takes an evaluation; `wait` gives what came of it."""
        raise NotImplementedError

    @abstractmethod
    def submit(self, ticket: Ticket, proposal: Proposal) -> None:
        """Take an evaluation. One beyond the number of workers waits for its turn; turns come in order."""

    @abstractmethod
    def wait(self) -> tuple[Ticket, Any]:
        """The next evaluation, or job, to finish; to be called only while one is under way.

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
