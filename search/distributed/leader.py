"""Rank 0: it does everything that one process would do, and trains with the others."""

from __future__ import annotations

import gc
import hashlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import torch

from search.distributed.group import LEAVING_SECONDS, LOST_SECONDS, Group
from search.distributed.joint_calls import JointCalls, Order, RankFailed, RankTraceback, Result, no_failure
from search.distributed.links import Link, Message, Watch, meet, name_interface
from search.errors import CatchmarkError, RunError, one_line
from search.training.interruption import check_interruption
from search.training.launch import Launch


def digest(resolved: str) -> str:
    """What ranks compare of their recipes."""
    return hashlib.sha256(resolved.encode()).hexdigest()


@dataclass
class _Round:
    """One joint call: how far the followers are, and which rank failed first, if any: why, and where in its code."""

    number: int = 0
    group: Group | None = None
    here: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)
    failed: tuple[int, str, str] | None = None


class Leader:
    """Rank 0, a context: the others end with the exit code that it is left with.

    Args:
        launch: of this process.
        again: what is kept when a rank is lost, and how to go on.

    Raises:
        RunError: the others did not come.
    """

    def __init__(self, launch: Launch, again: str = "what was evaluated is kept: start again with --resume"):
        self._links, self._again = meet(launch), again
        # Of the agents of torchrun only the one that lost a process counts that as a restart.
        self.launch = replace(launch, restarts=max([launch.restarts, *(link.restarts for link in self._links)]))
        name_interface(self._links[0])
        self._changed = threading.Condition()
        self._round, self._ready = _Round(), dict[int, Message]()
        self._stop: BaseException | None = None
        self._searching = self._over = False
        self._watch = Watch(self._links, self._hear)

    def __enter__(self) -> Leader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the others home."""
        with self._changed:
            self._over = True
        self._tell(stop=0 if kind is None else getattr(error, "exit_code", 130 if kind is KeyboardInterrupt else 1))
        self._watch.close()
        for link in self._links:
            link.close()

    def begin(self, calls: JointCalls, about: str) -> None:
        """See that all ranks are there for the same.

        Args:
            calls: what this rank will do with the others.
            about: what that follows from, such as the recipe with every default.

        Raises:
            CatchmarkError: another rank can't make the same of it, or of something else.
            RunError: a rank is gone.
        """
        self._wait(lambda: len(self._ready) == len(self._links))
        for link in self._links:
            if "refused" in (said := self._ready[link.peer]):
                raise CatchmarkError(f"rank {link.peer} ({link.place}): {said['refused']}")
            if said["about"] != digest(about):
                raise CatchmarkError(
                    f"rank {link.peer} ({link.place}) has another recipe, or another version of catchmark; every rank "
                    "must be given the same"
                )
        if calls.nothing:
            print(
                f"ranks: {len(self._links)} of {self.launch.ranks} processes have nothing to do, for {calls.nothing}",
                file=sys.stderr,
            )
        gc.freeze()  # what is there stays; to look through it behind each evaluation would take longer than some train

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Around the run: a rank that is gone or interrupted interrupts it, whatever it does.

        Raises:
            RunError: a rank is gone.
        """
        self._searching = True
        try:
            yield
        except KeyboardInterrupt:
            self._check()
            raise
        finally:
            with self._changed:
                self._searching = False

    # ---- one joint call --------------------------------------------------------------------------------------------

    def together(
        self, order: Order, own: Callable[[], Result], failure: Callable[[Result], str | None] = no_failure
    ) -> Result:
        """Make a joint call, as `search.distributed.joint_calls.Together` says."""
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        group = Group(self.launch)
        with self._changed:
            self._check()
            self._round = at = _Round(self._round.number + 1, group)
        error: Exception | None = None
        results: list[Result] = []
        try:
            self._tell(call=at.number, order=order, port=group.port, backend=backend)
            self._wait(lambda: at.failed is not None or len(at.here) == len(self._links))
            if at.failed is None:
                self._tell(go=at.number)
                try:
                    group.join(backend)
                    results.append(own())
                    reason = failure(results[0])
                except CatchmarkError:
                    raise
                except Exception as raised:
                    reason, error = f"{type(raised).__name__}: {raised}", raised
                    traceback.clear_frames(raised.__traceback__)  # they hold the network, and with it the group
                if reason:
                    with self._changed:
                        self._fail(0, reason)
            self._wait(lambda: at.failed is not None or len(at.done) == len(self._links))
            if at.failed is None:
                self._tell(leave=at.number)
        finally:
            group.close()
        self._wait(lambda: len(at.left) == len(self._links), LEAVING_SECONDS)
        if at.failed is not None and at.failed[0] > 0:
            rank, reason, trace = at.failed
            raise RankFailed(rank, reason) from RankTraceback(trace)
        if error is not None:
            raise error
        return results[0]

    def _wait(self, ready: Callable[[], bool], seconds: float | None = None) -> None:
        with self._changed:
            in_time = self._changed.wait_for(lambda: self._stop is not None or ready(), seconds)
            self._check()
        if not in_time:
            late = [f"{link.peer} ({link.place})" for link in self._links if link.peer not in self._round.left]
            raise RunError(f"rank {', '.join(late[:8])} does not come back from what failed elsewhere")

    def _check(self) -> None:
        if self._stop is not None:
            raise self._stop
        check_interruption()

    def _tell(self, **message: Any) -> None:
        for link in self._links:
            link.send(**message)

    # ---- what followers say, heard in the watching thread ----------------------------------------------------------

    def _hear(self, link: Link, message: Message | None) -> None:
        with self._changed:
            at = self._round
            if self._over or self._stop is not None:
                return
            if message is None or "interrupted" in message:
                lost = f"rank {link.peer} ({link.place}) is gone; {self._again}"
                self._interrupt(RunError(lost) if message is None else None)
            elif "number" not in message:
                self._ready[link.peer] = message
            elif message["number"] == at.number and "here" in message:
                at.here.add(link.peer)
            elif message["number"] == at.number and "left" in message:
                at.left.add(link.peer)
            elif message["number"] == at.number:
                at.done.add(link.peer)
                if "refused" in message:
                    kind = RunError if message["code"] == RunError.exit_code else CatchmarkError
                    self._stop = kind(message["refused"])
                    self._fail(link.peer, message["refused"])
                elif message["reason"]:
                    self._fail(link.peer, message["reason"], message.get("trace", ""))
            self._changed.notify_all()

    def _interrupt(self, lost: RunError | None) -> None:
        self._stop = lost or KeyboardInterrupt()
        if self._round.group is not None:
            self._round.group.abandon(LOST_SECONDS, one_line(self._stop) if lost else "another rank was interrupted")
        if self._searching and (main := threading.main_thread().ident) is not None:
            signal.pthread_kill(main, signal.SIGTERM)

    def _fail(self, rank: int, reason: str, trace: str = "") -> None:
        """The call has failed: every rank leaves it. Under the lock."""
        if self._round.failed is None:
            self._round.failed = rank, reason, trace
            self._tell(leave=self._round.number, failed=True)
            if rank > 0 and self._round.group is not None:
                self._round.group.abandon(LEAVING_SECONDS, f"rank {rank} has failed with {reason}")
