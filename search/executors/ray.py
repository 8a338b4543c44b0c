"""Evaluations and trainings on Ray: workers on this machine or on a cluster, each a process of its own.

A worker is a Ray actor that holds the task, or other work. It does one job after another, so that what takes long to
import or to read is imported and read once; it is replaced where it died or had to be killed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation
from search.executors.base import Hear, Job, Refusal, Ticket, Work, WorkerExecutor
from search.executors.inline import evaluate_one
from search.executors.ray_groups import processes_of, was_lost
from search.executors.ray_session import RaySession
from search.tasks.base import Task
from search.training.launch import WORKER

_LISTEN_SECONDS = 2.0
"""How often what jobs say is asked for."""
_MOST_FAILED_STARTS = 3
"""Workers that may die in a row while they are given the task."""


@dataclass
class _Calls:
    """What workers have been told to do, by the reference that Ray resolves when it is done."""

    starting: dict[Any, Any] = field(default_factory=dict)
    evaluating: dict[Any, tuple[Any, Job]] = field(default_factory=dict)


class RayExecutor(WorkerExecutor):
    """Evaluate, or train supernets, on Ray, on this machine or on a cluster.

    Supernets keep their checkpoints in the run's folder: on a cluster it must lie where every machine sees it by the
    same name.

    Whatever finishes first is told first. With more workers than trials a result therefore depends on how long
    evaluations take; see `search.loop.run_search` for what a seed decides.

    A worker sees ``cpus`` threads. A task that names its number of threads scores the same here as anywhere.

    Where the ``trainer`` of a task has ``devices: n``, each candidate is trained by ``n`` processes on one machine, for
    which Ray reserves ``n`` times ``cpus`` and ``gpus`` (`search.executors.ray_groups`).

    Args:
        workers: evaluations at a time.
        cpus: CPU cores that Ray reserves for a process that trains, and its number of threads.
        gpus: GPUs that Ray reserves for a process that trains; a worker sees those of its candidate. A fraction shares
            one.
        address: of a cluster; ``auto`` for the one that this machine belongs to. Without one Ray is started on this
            machine, for this run, and can be reached from nowhere else.
        retries: times that an evaluation is tried again whose worker died (killed, out of memory, lost with its node).
            Then it is a failed evaluation; a supernet's training then ends the run, which can go on. An exception in
            the task is a failed evaluation at once.
        time_limit_seconds: an evaluation that takes longer has failed, and its worker is killed; None for no limit.
        resources: further resources that Ray reserves for a worker, by name, for instance ``{"large_gpu": 1}``.
        start_seconds: how long to wait for the first worker, for instance of a cluster that has yet to grow.

    Raises:
        ValueError: an argument is out of range.
    """

    starts_processes = True

    def __init__(
        self,
        workers: int,
        cpus: float = 1,
        gpus: float = 0,
        address: str | None = None,
        retries: int = 2,
        time_limit_seconds: float | None = None,
        resources: dict[str, float] | None = None,
        start_seconds: float = 600.0,
    ):
        if workers < 1:
            raise ValueError(f"workers is {workers}, at least 1 is needed")
        for name, least in (("cpus", cpus), ("gpus", gpus), ("retries", retries)):
            if not 0 <= least < math.inf:
                raise ValueError(f"{name} is {least}, a number of at least 0 is needed")
        for name, limit in (("time_limit_seconds", time_limit_seconds), ("start_seconds", start_seconds)):
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} is {limit}, a number above 0 is needed")
        super().__init__(retries)
        self.workers, self.cpus, self.gpus, self.address = workers, cpus, gpus, address
        self.time_limit_seconds, self.start_seconds = time_limit_seconds, start_seconds
        self.resources = dict(resources or {})
        self._session: RaySession | None = None
        self._processes = 1
        self._idle: deque[Any] = deque()
        self._calls = _Calls()
        self._held: Any = None
        self._mailbox: Any = None
        self._failed_starts = 0
        self._began = 0.0

    # ---- the contract ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Refuse a run for which Ray is missing; it starts with the first task that needs it."""
        RaySession.check_installed()

    def _hold(self, held: Task | Work, hear: Hear | None) -> None:
        """Send it to every worker, once; start what workers there are not."""
        self.drop()
        self._reserve(processes_of(held))
        if self._session is None:
            self._session = RaySession(self.address, self._needs(), self.workers)
        self._held, self._hear = self._session.put(held), hear
        if hear is not None and self._mailbox is None:
            self._mailbox = self._session.start(_Mailbox, needs={"CPU": 0, "GPU": 0}, variables={})
        self._failed_starts, self._began = 0, time.monotonic()
        idle, self._idle = self._idle, deque()
        for actor in idle:
            self._load(actor)
        while len(self._calls.starting) < self.workers:
            self._start()

    def wait(self) -> tuple[Ticket, Any]:
        """The next to finish."""
        assert self._session is not None, "no task has begun"
        while True:
            calls = [*self._calls.evaluating, *self._calls.starting]
            for call in self._session.finished(calls, self._patience()):
                if call in self._calls.starting:
                    self._started(call)
                elif (result := self._evaluated(call)) is not None:
                    self._listen()
                    return result
                self._hand_out()
            self._listen()
            if (late := self._too_late()) is not None:
                return late
            self._check_start()

    def drop(self) -> None:
        """Kill the workers of what is under way, and forget what waits."""
        self._waiting.clear()
        for actor, _ in self._calls.evaluating.values():
            self._kill(actor)
        for actor in self._calls.starting.values():
            self._kill(actor)
        self._calls = _Calls()

    def close(self) -> None:
        """Kill every worker, and end Ray where it was started for this run."""
        self.drop()
        self._dismiss()
        self._end_session()

    # ---- workers ---------------------------------------------------------------------------------------------------

    def _needs(self) -> dict[str, float]:
        return {"CPU": self.cpus * self._processes, "GPU": self.gpus * self._processes} | self.resources

    def _reserve(self, processes: int) -> None:
        """From now on a candidate is trained by so many processes: what is reserved for a worker stays with it."""
        if processes == self._processes:
            return
        self._dismiss()
        self._processes = processes
        if self._session is not None and not self._session.has(self._needs(), self.workers):
            self._end_session()

    def _end_session(self) -> None:
        self._held = self._mailbox = None
        if self._session is not None:
            self._session.close()
            self._session = None

    def _dismiss(self) -> None:
        while self._idle:
            self._kill(self._idle.pop())

    def _start(self) -> None:
        assert self._session is not None
        threads = max(1, int(self.cpus))
        variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        variables[WORKER] = "1"
        self._load(self._session.start(_Worker, threads, needs=self._needs(), variables=variables))

    def _load(self, actor: Any) -> None:
        self._calls.starting[actor.load.remote(self._held)] = actor

    def _kill(self, actor: Any) -> None:
        assert self._session is not None
        self._session.kill(actor)

    def _replace(self, actor: Any) -> None:
        self._kill(actor)
        self._start()

    def _hand_out(self) -> None:
        """Give every idle worker something to do."""
        while self._waiting and self._idle:
            actor, job = self._idle.popleft(), self._waiting.popleft()
            job.begin()
            speaks = () if self._hear is None else (job.ticket, self._mailbox)
            self._calls.evaluating[actor.do.remote(job.order, *speaks)] = (actor, job)

    # ---- what they say ---------------------------------------------------------------------------------------------

    def _started(self, call: Any) -> None:
        """A worker has the task, or it died of it."""
        actor = self._calls.starting.pop(call)
        _, death = self._answer(actor, call)
        if not death:
            self._idle.append(actor)
            self._failed_starts = 0
            return
        self._failed_starts += 1
        if self._failed_starts >= _MOST_FAILED_STARTS:
            raise RunError(f"{self._failed_starts} workers in a row died while they were given the task: {death}")
        self._replace(actor)

    def _listen(self) -> None:
        """Hear what jobs have said meanwhile."""
        if self._hear is not None:
            assert self._session is not None
            said, _ = self._session.answer(self._mailbox.take.remote())
            for ticket, what in said or ():
                self._hear(ticket, what)

    def _evaluated(self, call: Any) -> tuple[Ticket, Any] | None:
        """An answer is there, or its worker died: then the job is given to another one, or has failed."""
        actor, job = self._calls.evaluating.pop(call)
        answer, death = self._answer(actor, call)
        if not death:
            self._idle.append(actor)
            self._hand_out()
            if isinstance(answer, Refusal):
                raise answer.error()
            return job.ticket, answer
        self._replace(actor)
        return self._again(job, death)

    def _answer(self, actor: Any, call: Any) -> tuple[Any, str]:
        """What a call gave; or what its process, or one of those that it started, died of."""
        assert self._session is not None
        try:
            answer, death = self._session.answer(call)
        except CatchmarkError:
            self._kill(actor)  # nobody else knows it any more, and what is reserved for it would stay reserved
            raise
        return answer, answer.words if isinstance(answer, _LostProcess) else death

    def _too_late(self) -> tuple[Ticket, Evaluation] | None:
        """An evaluation that is over its limit of time, if one is."""
        now = time.monotonic()
        for call, (actor, job) in self._calls.evaluating.items():
            if self.time_limit_seconds is not None and now - job.began > self.time_limit_seconds:
                del self._calls.evaluating[call]
                self._replace(actor)
                reason = f"time limit of {self.time_limit_seconds:g} s reached, its worker was killed"
                if self._hear is not None:
                    raise RunError(f"executor: {reason}")
                return job.ticket, Evaluation.failed(reason, job.seconds)
        return None

    def _patience(self) -> float | None:
        """Seconds until something must be looked after; None if nothing will."""
        moments = [] if self._hear is None else [time.monotonic() + _LISTEN_SECONDS]
        if self.time_limit_seconds is not None:
            moments += [job.began + self.time_limit_seconds for _, job in self._calls.evaluating.values()]
        if not self._idle and not self._calls.evaluating:
            moments.append(self._began + self.start_seconds)
        return max(0.0, min(moments) - time.monotonic()) + 0.01 if moments else None

    def _check_start(self) -> None:
        """Stop waiting for a first worker that does not come."""
        idle = not self._idle and not self._calls.evaluating
        if idle and time.monotonic() > self._began + self.start_seconds:
            assert self._session is not None
            raise RunError(
                f"no worker has started in {self.start_seconds:g} s: one needs {_in_words(self._needs())}, "
                f"Ray has {_in_words(self._session.resources())}"
            )


class _Worker:
    """What runs in a worker's process.

    Args:
        threads: of the CPU.
    """

    def __init__(self, threads: int):
        import torch

        torch.set_num_threads(threads)

    def load(self, held: Task | Work) -> None:
        """Do what is asked of this from now on."""
        self._held = held

    def do(self, order: Any, ticket: Ticket | None = None, mailbox: Any = None) -> Any:
        """One evaluation or job; what stops a run in one process is said to the process that started this one."""
        try:
            if isinstance(self._held, Work):
                return self._held.do(order, lambda what: RaySession.done(mailbox.put.remote(ticket, what)))
            evaluation = evaluate_one(self._held, order)
            return _LostProcess(evaluation.reason) if was_lost(evaluation) else evaluation
        except (CatchmarkError, SystemExit) as error:
            return Refusal.of(error)


class _Mailbox:
    """Where jobs leave what the run should hear while they are under way: an actor of its own."""

    def __init__(self) -> None:
        self._said: list[tuple[Ticket, Any]] = []

    def put(self, ticket: Ticket, what: Any) -> None:
        """Leave something."""
        self._said.append((ticket, what))

    def take(self) -> list[tuple[Ticket, Any]]:
        """All that was left since the last time."""
        said, self._said = self._said, []
        return said


@dataclass(frozen=True)
class _LostProcess:
    """One of the processes that trained a candidate was killed, or crashed: which, and by what."""

    words: str


def _in_words(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} {name}" for name, value in sorted(resources.items()) if value) or "nothing"
