"""Evaluations and trainings in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, RunError, one_line
from search.executors.base import Executor, Hear, Job, Refusal, Say, Ticket, Work, WorkerExecutor, unsendable
from search.executors.inline import evaluate_one
from search.tasks.base import Task

_DIED = "its process was killed, ran out of memory, or crashed"


@dataclass
class _Worker:
    """A process, and this end of the connection to it; the job that it is at, if any."""

    process: Any
    connection: Connection
    job: Job | None = None


class ProcessExecutor(WorkerExecutor):
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
        super().__init__(retries)
        self.workers, self.threads = workers, threads
        self._folder: Path | None = None
        self._held, self._number = "", 0
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    # ---- the contract ----------------------------------------------------------------------------------------------

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
            raise unsendable(held, one_line(error)[:200]) from error
        if self._held:
            Path(self._held).unlink(missing_ok=True)
        self._held, self._hear = str(path), hear

    def _hand_out(self) -> None:
        while self._waiting and len(self._busy) < self.workers:
            worker = self._idle.pop() if self._idle else self._start()
            worker.job = job = self._waiting.popleft()
            job.begin()
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
            self._busy.remove(worker)
            _end(worker)
            return self._again(job, _DIED, "; with fewer workers less memory is needed")
        if kind == "said":
            assert self._hear is not None
            self._hear(job.ticket, content)
            return None
        self._busy.remove(worker)
        self._idle.append(worker)
        worker.job = None
        if kind == "refused":
            raise content.error()
        if kind == "failed":
            raise RuntimeError(content)
        return job.ticket, content


def executor_for(workers: int, executor: Executor | None) -> Executor | None:
    """The executor of a study that has ``workers`` as a short name for processes; None for this process.

    Raises:
        CatchmarkError: it is given both.
    """
    if workers == 1:
        return executor
    if executor is not None:
        raise CatchmarkError(f"workers is {workers}, and there is an executor, which has workers of its own")
    return ProcessExecutor(workers)


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
        except (CatchmarkError, SystemExit) as error:
            connection.send(("refused", Refusal.of(error)))
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


def _do(held: Any, order: Any, say: Say) -> Any:
    return evaluate_one(held, order) if isinstance(held, Task) else held.do(order, say)


def _end_with(parent: int) -> None:
    """End with the process that started this one, however that ends."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
