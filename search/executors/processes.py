"""Evaluations and trainings in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, RunError, one_line
from search.evaluation import Evaluation, Proposal
from search.executors.base import Executor, Hear, Ticket, Work
from search.executors.inline import evaluate_one
from search.tasks.base import Task

_DIED = "its process was killed, ran out of memory, or crashed"


@dataclass
class _Job:
    """An evaluation, or a job of other work.

    Attributes:
        ticket: what it is known by.
        order: what the worker is to evaluate or to do.
        deaths: workers that died of it.
        began: when the first of its workers got it, by `time.monotonic`.
    """

    ticket: Ticket
    order: tuple[Any, ...]
    deaths: int = 0
    began: float = 0.0


@dataclass
class _Worker:
    """A process, and this end of the connection to it; the job that it is at, if any."""

    process: Any
    connection: Connection
    job: _Job | None = None


class ProcessExecutor(Executor):
    """Evaluate, or train supernets, in several processes of this machine.

    Args:
        workers: evaluations or trainings at a time, each in its own process.
        threads: of the CPU for each; None for as many as torch uses, where what is trained does not say.
        retries: times that one is tried again whose process died. Then it is a failed evaluation, or, of a supernet,
            ends the run, which can go on. An exception in a task is a failed evaluation at once.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, workers: int, threads: int | None = None, retries: int = 1):
        for name, value, least in (("workers", workers, 1), ("threads", threads, 1), ("retries", retries, 0)):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, at least {least} is needed")
        self.workers, self.threads, self.retries = workers, threads, retries
        self._folder: Path | None = None
        self._held, self._number, self._is_task = "", 0, True
        self._hear: Hear | None = None
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._waiting: deque[_Job] = deque()

    # ---- the contract ----------------------------------------------------------------------------------------------

    def begin(self, task: Task) -> None:
        """Evaluate on this task from now on."""
        self._hold(task, None)

    def begin_work(self, work: Work, hear: Hear) -> None:
        """Do jobs of this work from now on."""
        self._hold(work, hear)

    def submit(self, ticket: Ticket, proposal: Proposal) -> None:
        """Take a proposal; the next free process gets it."""
        self._add(ticket, proposal)

    def take(self, ticket: Ticket, job: Any) -> None:
        """Take a job; the next free process gets it."""
        self._add(ticket, job)

    def wait(self) -> tuple[Ticket, Any]:
        """The next to finish."""
        while True:
            self._hand_out()
            by_connection = {worker.connection: worker for worker in self._busy}
            for connection in wait(list(by_connection)):
                if (finished := self._listen(by_connection[connection])) is not None:  # type: ignore[index]
                    return finished

    def drop(self) -> None:
        """Kill the processes of what is under way, and forget what waits."""
        self._waiting.clear()
        while self._busy:
            _end(self._busy.pop())

    def close(self) -> None:
        """Kill every process."""
        self.drop()
        while self._idle:
            _end(self._idle.pop())
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # ---- workers ---------------------------------------------------------------------------------------------------

    def _hold(self, held: Task | Work, hear: Hear | None) -> None:
        """Keep in a file what workers are to hold: each reads it when it gets its first job of it."""
        import cloudpickle

        self.drop()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="catchmark-"))
        self._number += 1
        path = self._folder / f"{self._number}.pickle"
        try:
            path.write_bytes(cloudpickle.dumps(held))
        except OSError as error:
            raise RunError(f"executor: {path} could not be written ({one_line(error)})") from error
        except Exception as error:
            raise CatchmarkError(
                f"executor: the task {type(held).__name__} can't be sent to workers: {one_line(error)[:200]}; open "
                "files, locks and connections must not be attributes of a task, or be made where they are first used"
            ) from error
        if self._held:
            Path(self._held).unlink(missing_ok=True)
        self._held, self._hear, self._is_task = str(path), hear, isinstance(held, Task)

    def _add(self, ticket: Ticket, *order: Any) -> None:
        self._waiting.append(_Job(ticket, order))
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and len(self._busy) < self.workers:
            worker = self._idle.pop() if self._idle else self._start()
            worker.job = job = self._waiting.popleft()
            job.began = job.began or time.monotonic()
            self._busy.append(worker)
            with suppress(OSError):  # it has died, which is noticed where it is listened to
                worker.connection.send((self._held, job.order))

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, os.getpid(), self.threads))
        process.start()
        theirs.close()  # so that its end is heard
        return _Worker(process, ours)

    def _listen(self, worker: _Worker) -> tuple[Ticket, Any] | None:
        """What a worker has to say: perhaps what came of its job."""
        job = worker.job
        assert job is not None
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            return self._died(worker, job)
        if kind == "said":
            assert self._hear is not None
            self._hear(job.ticket, content)
            return None
        self._busy.remove(worker)
        self._idle.append(worker)
        worker.job = None
        if kind == "refused":
            message, exit_code = content
            raise (RunError if exit_code == RunError.exit_code else CatchmarkError)(message)
        if kind == "failed":
            raise RuntimeError(content)
        return job.ticket, content

    def _died(self, worker: _Worker, job: _Job) -> tuple[Ticket, Any] | None:
        self._busy.remove(worker)
        _end(worker)
        job.deaths += 1
        if job.deaths <= self.retries:
            self._waiting.appendleft(job)
            return None
        if not self._is_task:
            raise RunError(f"a worker died {job.deaths} times: {_DIED}; with fewer workers less memory is needed")
        times = "once" if job.deaths == 1 else f"{job.deaths} times"
        return job.ticket, Evaluation.failed(f"its worker died {times}: {_DIED}", time.monotonic() - job.began)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


# ---- in a worker ---------------------------------------------------------------------------------------------------


def _serve(connection: Connection, parent: int, threads: int | None) -> None:
    """Do what is asked for, until nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a whole terminal: the process that started this one answers it
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    path, held = "", None
    while True:
        try:
            asked, order = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if asked != path:
                path, held = asked, _read(asked)
            connection.send(("done", _do(held, order, lambda what: connection.send(("said", what)))))
        except CatchmarkError as error:
            connection.send(("refused", (str(error), error.exit_code)))
        except SystemExit as error:
            words = f"the task ended its process with SystemExit({error.code})"
            connection.send(("refused", (words, RunError.exit_code)))
        except Exception as error:
            connection.send(("failed", f"{type(error).__name__}: {one_line(error)}"))


def _read(path: str) -> Any:
    """What the process that started this one has written there, into a folder of its own."""
    import cloudpickle

    try:
        held = cloudpickle.loads(Path(path).read_bytes())
    except Exception as error:
        raise CatchmarkError(
            f"executor: a worker can't take the task: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not isinstance(held, (Task, Work)):
        raise CatchmarkError(f"executor: a worker can't take the task: what arrives is a {type(held).__name__}")
    return held


def _do(held: Any, order: tuple[Any, ...], say: Any) -> Any:
    return evaluate_one(held, *order) if isinstance(held, Task) else held.do(*order, say)


def _end_with(parent: int) -> None:
    """End with the process that started this one, however that ends."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
