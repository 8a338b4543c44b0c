"""Any other rank: it trains what rank 0 says, and writes nothing."""

from __future__ import annotations

import gc
import queue
import traceback
from collections.abc import Callable

from search.distributed.group import LEAVING_SECONDS, LOST_SECONDS, Group
from search.distributed.joint_calls import JointCalls
from search.distributed.leader import digest
from search.distributed.links import Link, Message, Watch, meet, name_interface
from search.errors import CatchmarkError, RunError, one_line
from search.training.interruption import check_interruption
from search.training.launch import Launch


class _Stopped(Exception):
    """Rank 0 has ended, with this exit code."""


class Follower:
    """Any other rank: it takes part in what rank 0 says, and writes nothing.

    Args:
        launch: of this process.

    Raises:
        RunError: rank 0 is not there.
    """

    def __init__(self, launch: Launch):
        self.launch = launch
        (self._link,) = meet(launch)
        name_interface(self._link)
        self._commands: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._group: Group | None = None
        self._watch = Watch([self._link], self._hear)

    def follow(self, load: Callable[[], tuple[JointCalls, str]]) -> int:
        """Take part until rank 0 ends.

        Args:
            load: gives what this rank will do with rank 0, and what that follows from, as `Leader.begin` takes it.

        Returns:
            The exit code of rank 0.

        Raises:
            RunError: rank 0 is gone.
            KeyboardInterrupt: this process was interrupted; rank 0 knows.
        """
        try:
            try:
                calls, about = load()
                self._link.send(about=digest(about))
            except CatchmarkError as error:
                self._link.send(refused=one_line(error))  # rank 0 says it to the user
            gc.freeze()
            while True:
                if "call" in (command := self._next()):
                    self._take_part(calls, command)
        except _Stopped as stopped:
            return stopped.args[0]
        except KeyboardInterrupt:
            self._link.send(interrupted=True)
            raise
        finally:
            self._watch.close()
            self._link.close()

    def _hear(self, link: Link, message: Message | None) -> None:
        if self._group is not None and (message is None or "failed" in message or "stop" in message):
            gone = message is None or "stop" in message
            why = "rank 0 is gone" if message is None else "rank 0 has ended" if gone else "another rank has failed"
            self._group.abandon(LOST_SECONDS if gone else LEAVING_SECONDS, why)
        self._commands.put(message)

    def _next(self) -> Message:
        check_interruption()
        if (command := self._commands.get()) is None:
            raise RunError(f"rank 0 ({self._link.place}) is gone, and rank {self.launch.rank} ends with it")
        if "stop" in command:
            raise _Stopped(command["stop"])
        return command

    def _take_part(self, calls: JointCalls, command: Message) -> None:
        number = command["call"]
        try:
            act = calls.find(command["order"])
        except Exception as error:
            self._tell_of(error, number)
        else:
            self._link.send(number=number, here=True)
            if "go" in self._next():
                try:
                    self._group = Group(self.launch, command["port"])
                    self._group.join(command["backend"])
                    self._link.send(number=number, reason=act() or "")
                except Exception as error:
                    self._tell_of(error, number)
                    error.__traceback__ = None
                try:
                    self._next()  # only now, for by leaving others fail too
                finally:
                    del act
                    self._close()
        self._link.send(number=number, left=True)

    def _tell_of(self, error: Exception, number: int) -> None:
        if isinstance(error, CatchmarkError):
            self._link.send(number=number, refused=one_line(error), code=error.exit_code)
        else:
            trace = "".join(traceback.format_exception(error))
            self._link.send(number=number, reason=f"{type(error).__name__}: {error}", trace=trace)

    def _close(self) -> None:
        if (group := self._group) is not None:
            group.close()
            self._group = None
