"""The contract of an executor: evaluations, or jobs of other work, go in, and come out as they finish."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation
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

    @abstractmethod
    def submit(self, ticket: Ticket, order: Any) -> None:
        """Take a `Proposal`, or a job of the work that has begun, as plain values.

        One beyond the number of workers waits for its turn; turns come in order.
        """

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


@dataclass
class Job:
    """An evaluation, or a job of other work, that waits or is under way.

    Attributes:
        ticket: what it is known by.
        order: what the worker is to evaluate or to do.
        deaths: workers that died of it.
        began: when its worker got it, by `time.monotonic`.
        first_began: when the first of its workers got it.
    """

    ticket: Ticket
    order: Any
    deaths: int = 0
    began: float = 0.0
    first_began: float | None = None

    def begin(self) -> None:
        """A worker gets it."""
        self.began = time.monotonic()
        self.first_began = self.began if self.first_began is None else self.first_began

    @property
    def seconds(self) -> float:
        """Since its first worker got it."""
        return 0.0 if self.first_began is None else time.monotonic() - self.first_began


class WorkerExecutor(Executor):
    """An executor whose workers are processes: each holds the task, or other work, and does one job after another.

    Args:
        retries: times that a job is tried again whose worker died.
    """

    def __init__(self, retries: int):
        self.retries = retries
        self._hear: Hear | None = None
        self._waiting: deque[Job] = deque()

    def begin(self, task: Task) -> None:
        """Evaluate on this task from now on."""
        self._hold(task, None)

    def begin_work(self, work: Work, hear: Hear) -> None:
        """Do jobs of this work from now on."""
        self._hold(work, hear)

    def submit(self, ticket: Ticket, order: Any) -> None:
        """Take a proposal or a job; the next free worker gets it."""
        self._waiting.append(Job(ticket, order))
        self._hand_out()

    @abstractmethod
    def _hold(self, held: Task | Work, hear: Hear | None) -> None:
        """Let workers hold this from now on, and hear what jobs say where it is other work."""

    @abstractmethod
    def _hand_out(self) -> None:
        """Give every free worker something to do."""

    def _again(self, job: Job, death: str, cure: str = "") -> tuple[Ticket, Evaluation] | None:
        """A job's worker died: it waits again, before all others, or has failed: an evaluation is answered.

        Raises:
            RunError: a training has failed; ``cure`` closes the message.
        """
        job.deaths += 1
        if job.deaths <= self.retries:
            self._waiting.appendleft(job)
            return None
        reason = f"its worker died {'once' if job.deaths == 1 else f'{job.deaths} times'}: {death}"
        if self._hear is not None:
            raise RunError(f"a training was given up, {reason}{cure}")
        return job.ticket, Evaluation.failed(reason, job.seconds)


def unsendable(held: Task | Work, cause: str) -> CatchmarkError:
    """What to say of a task that can't be sent to another process."""
    return CatchmarkError(
        f"executor: the task {type(held).__name__} can't be sent to workers: {cause}; open files, locks and "
        "connections must not be attributes of a task, or be made where they are first used"
    )


@dataclass(frozen=True)
class Refusal:
    """What stops a run, told by a worker in plain values: the error's class might not be known in the run's process."""

    message: str
    exit_code: int

    @classmethod
    def of(cls, error: CatchmarkError | SystemExit) -> Refusal:
        """What a worker tells of it."""
        if isinstance(error, SystemExit):
            return cls(f"the task ended its process with SystemExit({error.code})", RunError.exit_code)
        return cls(str(error), error.exit_code)

    def error(self) -> CatchmarkError:
        """It again, in the run's process."""
        return (RunError if self.exit_code == RunError.exit_code else CatchmarkError)(self.message)
