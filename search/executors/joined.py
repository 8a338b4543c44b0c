"""Evaluations and trainings in all processes that have joined a run, without anything else that connects them."""

from __future__ import annotations

import copyreg
import hashlib
import io
import os
import re
import socket
import threading
import time
from collections import defaultdict, deque
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from search.errors import CatchmarkError, RunError, one_line
from search.evaluation import Evaluation
from search.executors.base import Executor, Hear, Refusal, Ticket, Work, unsendable
from search.executors.board import Board, Claim
from search.executors.inline import evaluate_one
from search.tasks.base import Task

_POLL_SECONDS = 0.2
_BEAT_SECONDS = 1.0
"""How often a worker says that it is still at a job."""


class JoinedExecutor(Executor):
    """Evaluate, or train supernets, in every process that was started with one ``catchmark run RECIPE --join RUN``.

    The first of them leads: it asks the agents and writes the journal. All of them evaluate. One that ends, is killed
    or is lost with its machine leaves its job to another; where it led, another leads from then on, and what is under
    way in the rest goes on. The run's folder must lie where every machine sees it by the same name, as on a cluster's
    shared file system, whose locks must reach over machines.

    Args:
        workers: evaluations that are under way at a time, for so many processes.
        retries: times that a job is tried again whose process was lost. Then it is a failed evaluation, or, of a
            supernet, ends the run, which can go on. An exception in a task is a failed evaluation at once.
        patience_seconds: without a sign of life after which a process is lost. It gives one a second; a shared file
            system may hide that for a minute.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, workers: int, retries: int = 1, patience_seconds: float = 120.0):
        for name, value, least in (("workers", workers, 1), ("retries", retries, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}, at least {least} is needed")
        if not patience_seconds > 0:
            raise ValueError(f"patience_seconds is {patience_seconds}, more than 0 is needed")
        self.workers, self.retries, self.patience_seconds = workers, retries, patience_seconds
        self._board: Board | None = None
        self._held, self._hear = "", None  # type: tuple[str, Hear | None]
        self._tickets: dict[str, deque[tuple[Ticket, float]]] = defaultdict(deque)
        self._deaths: dict[str, int] = {}
        self._told: list[str] = []

    def place(self, folder: Path) -> None:
        """Where the run is."""
        self._board = Board(folder / "board")

    @property
    def board(self) -> Board:
        """The folder through which jobs go.

        Raises:
            CatchmarkError: the run was not started so that others can join it.
        """
        if self._board is None:
            raise CatchmarkError(
                "executor: JoinedExecutor is for runs that processes join: start each of them with "
                "catchmark run RECIPE --join RUN, where RUN is the folder of the run"
            )
        return self._board

    def open(self) -> None:
        """Refuse a run that nobody can join."""
        self.board.beat()

    def begin(self, task: Task) -> None:
        """Evaluate on this task from now on."""
        self._hold(task, None)

    def begin_work(self, work: Work, hear: Hear) -> None:
        """Do jobs of this work from now on."""
        self._hold(work, hear)

    def submit(self, ticket: Ticket, order: Any) -> None:
        """Put up a proposal or a job; what another leader has put up before, or an answer to it, is taken over."""
        key = self.board.post(self._held, order)
        self._tickets[key].append((ticket, time.monotonic()))

    def wait(self) -> tuple[Ticket, Any]:
        """The next to finish."""
        self._forget_told()
        while True:
            self.board.beat()
            for key, (kind, content) in self.board.answers().items():
                if self._tickets.get(key):
                    return self._answered(key, kind, content)
            for key in self.board.overdue(self.patience_seconds):
                if self._tickets.get(key) and self.board.take_back(key):
                    self._deaths[key] = self._deaths.get(key, 0) + 1
                    if self._deaths[key] > self.retries:
                        return self._given_up(key)
            time.sleep(_POLL_SECONDS)

    def drop(self) -> None:
        """Give up what is under way."""
        self._forget_told()
        for key in self._tickets:
            self.board.forget(key)
        self._tickets.clear()
        self._deaths.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self.board.finish()

    def _hold(self, held: Task | Work, hear: Hear | None) -> None:
        import cloudpickle

        self.drop()
        try:
            content, name = cloudpickle.dumps(held), _name_of(held)
        except Exception as error:
            raise unsendable(held, one_line(error)[:200]) from error
        self.board.hold(name, content)
        self.board.keep_only(name)
        self._held, self._hear = name, hear

    def _answered(self, key: str, kind: str, content: Any) -> tuple[Ticket, Any]:
        if kind != "done":
            self.board.forget(key)  # once its cause is mended it is to be done again
            raise content.error() if kind == "refused" else RuntimeError(content)
        ticket, _ = self._tickets[key].popleft()
        if not self._tickets[key]:
            del self._tickets[key]
            self._told.append(key)  # until what it says is in the journal: another leader would find it here
        if self._hear is not None:
            said, content = content
            for each in said:
                self._hear(ticket, each)
        return ticket, content

    def _given_up(self, key: str) -> tuple[Ticket, Evaluation]:
        times = "once" if self._deaths[key] == 1 else f"{self._deaths[key]} times"
        reason = f"its process was lost {times}: killed, out of memory, or gone with its machine"
        ticket, began = self._tickets[key].popleft()
        self.board.forget(key)
        if self._hear is not None:
            raise RunError(f"a training was given up, {reason}")
        return ticket, Evaluation.failed(reason, time.monotonic() - began)

    def _forget_told(self) -> None:
        """What was told is in the journal by now."""
        while self._told:
            self.board.forget(self._told.pop())


def _name_of(held: Task | Work) -> str:
    """The same for what is the same, whichever process leads: a digest of it, less what it has computed meanwhile."""
    import cloudpickle

    class Digest(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            state = None if isinstance(obj, type) else getattr(obj, "__dict__", None)
            if isinstance(state, dict) and type(obj).__reduce_ex__ is object.__reduce_ex__:
                kept = {
                    key: value
                    for key, value in state.items()
                    if not isinstance(getattr(type(obj), key, None), cached_property)
                }
                if len(kept) < len(state):
                    return copyreg.__newobj__, (type(obj),), kept or None  # type: ignore[attr-defined]
            return super().reducer_override(obj)

    stream = io.BytesIO()
    Digest(stream).dump(held)
    return hashlib.sha256(stream.getvalue()).hexdigest()[:32]


class JoinedWorker:
    """One process that does jobs of a board.

    Args:
        board: the folder.
    """

    def __init__(self, board: Board):
        self.board, self.name = board, re.sub(r"\W", "_", f"{socket.gethostname()}_{os.getpid()}")
        self._name, self._held = "", None  # type: tuple[str, Any]
        self._claim: Claim | None = None

    def work_once(self) -> bool:
        """Do one job; False where none waits."""
        claim = self.board.claim(self.name)
        if claim is None:
            return False
        self._claim, done = claim, threading.Event()
        beating = threading.Thread(target=self._beat, args=(claim, done), daemon=True)
        beating.start()
        try:
            content = self._do(claim)
        except BaseException:
            self.give_back()
            raise
        finally:
            done.set()
            beating.join()
        self.board.answer(claim, self.name, content)
        self._claim = None
        return True

    def give_back(self) -> None:
        """This process ends: another need not wait for what it is at until it is missed."""
        if self._claim is not None and self.board.touch(self._claim):
            self.board.take_back(self._claim.key)

    def _beat(self, claim: Claim, done: threading.Event) -> None:
        while not done.wait(_BEAT_SECONDS) and self.board.touch(claim):
            pass

    def _do(self, claim: Claim) -> tuple[str, Any]:
        """Whether a job was done, refused or failed, and what came of it."""
        try:
            if claim.held != self._name:
                self._name, self._held = claim.held, self.board.held(claim.held)
            if isinstance(self._held, Task):
                return "done", evaluate_one(self._held, claim.order)
            said: list[Any] = []
            return "done", (said, self._held.do(claim.order, said.append))
        except (CatchmarkError, SystemExit) as error:
            return "refused", Refusal.of(error)
        except Exception as error:
            return "failed", f"{type(error).__name__}: {one_line(error)}"
