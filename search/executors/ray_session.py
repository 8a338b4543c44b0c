"""The only place that speaks to Ray: a connection, started quietly and ended without a trace."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, RunError, one_line
from search.executors.base import unsendable
from search.runs.locking import FileLock

_PREFIX = "catchmark-"
_LONGEST = 24
"""Characters of the folder for temporary files: Ray puts sockets below it, whose paths may have 107."""
_KNOCK_SECONDS = 20.0
"""How long a cluster's address may take to answer."""
_INSTALL = 'the executor RayExecutor needs Ray: pip install "catchmark[ray]"'


class RaySession:
    """A connection to Ray.

    Args:
        address: of a cluster; None starts Ray on this machine, reachable from nowhere else, and ends it on `close`.
        needs: what a worker needs, by Ray's names of resources.
        workers: how many there will be.

    Raises:
        CatchmarkError: Ray is not installed, there is no such cluster, or this machine lacks what workers need.
        RunError: Ray could not be started.
    """

    def __init__(self, address: str | None, needs: Mapping[str, float], workers: int):
        self.check_installed()
        self._folder: Path | None = None
        self._lock: FileLock | None = None
        # Ray reports its use to its makers unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is None and "ray" not in sys.modules:
            # All of these are read when Ray is imported. Only this machine's own address is listened on, and callers
            # need a secret that is made here, instead of one that Ray would leave in the home directory.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        self._ray = ray
        self._kinds: dict[type, Any] = {}
        self._ours = not ray.is_initialized()
        if self._ours:
            with _handlers_kept():
                if address is None:
                    self._start_here(needs, workers)
                else:
                    self._connect(address)
        if address is None and (lacking := _lacking(needs, workers, self.resources())):
            self.close()
            raise CatchmarkError(f"executor: {lacking}")

    @staticmethod
    def check_installed() -> None:
        """Say how to install Ray where it is missing."""
        if importlib.util.find_spec("ray") is None:
            raise CatchmarkError(_INSTALL)

    def _start_here(self, needs: Mapping[str, float], workers: int) -> None:
        parent = _temporary()
        _remove_leftovers(parent)
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = FileLock(self._folder / "lock")
        own = {name: value * workers for name, value in needs.items() if name not in ("CPU", "GPU") and value}
        try:
            self._ray.init(
                # What workers ask for, whatever the machine has: CPUs are shared, not handed out.
                num_cpus=max(1, math.ceil(needs["CPU"] * workers)),
                resources=own or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                _temp_dir=str(self._folder),
                _node_ip_address="127.0.0.1",
                _system_config={
                    # A worker that is killed takes along what it has started: loaders of data, ranks of a training.
                    "process_group_cleanup_enabled": True,
                    # Training is what this run is for. Ray would let every other program of the machine go first: a
                    # group that is to meet in time would not, beside a few that are busy.
                    "worker_niceness": 0,
                    # One a core, and nobody's: those of a run have an environment of their own.
                    "prestart_worker_first_driver": False,
                },
            )
        except Exception as error:
            self.close()
            raise RunError(f"Ray can't be started: {one_line(error)[:300]}") from error

    def _connect(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            if host and port.isdigit() and "/" not in host:
                # Where nobody listens, Ray tries again for minutes.
                socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except Exception as error:
            raise CatchmarkError(
                f"executor.address: there is no Ray cluster at '{address}' ({one_line(error)[:200]}); "
                "leave the address out to start Ray on this machine"
            ) from error

    def put(self, value: Any) -> Any:
        """Store something once, for every worker.

        Raises:
            CatchmarkError: it can't be sent to another process.
        """
        try:
            return self._ray.put(value)
        except Exception as error:
            # Ray's own message is a page of guesses about where the cause may lie.
            cause = one_line(error.__cause__ or error)[:200]
            raise unsendable(value, cause) from error

    def start(self, kind: type, *arguments: Any, needs: Mapping[str, float], variables: Mapping[str, str]) -> Any:
        """An actor of a class, in a process with these environment variables."""
        if kind not in self._kinds:
            self._kinds[kind] = self._ray.remote(kind)
        options = self._kinds[kind].options(
            num_cpus=needs["CPU"],
            num_gpus=needs["GPU"],
            resources={name: value for name, value in needs.items() if name not in ("CPU", "GPU") and value},
            runtime_env={"env_vars": dict(variables)},
            max_restarts=0,
            max_task_retries=0,
        )
        return options.remote(*arguments)

    def kill(self, actor: Any) -> None:
        """End an actor's process at once; without effect where it has ended."""
        with suppress(Exception):
            self._ray.kill(actor, no_restart=True)

    def finished(self, calls: Sequence[Any], timeout: float | None) -> list[Any]:
        """The first of these calls that is done, in a list; none if none is in time."""
        ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=timeout)
        return ready

    def answer(self, call: Any) -> tuple[Any, str]:
        """What a call gave; or None and what its process died of.

        Raises:
            CatchmarkError: it was the task's own fault that the call did not take place.
        """
        from ray import exceptions

        try:
            return self._ray.get(call), ""
        except exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            raise CatchmarkError(
                f"executor: a worker can't take the task or give its result back: {type(cause).__name__}: "
                f"{str(cause).strip().splitlines()[-1] if str(cause).strip() else ''}"
            ) from error
        except exceptions.RayError as error:
            return None, _death(error)

    @staticmethod
    def done(call: Any) -> None:
        """Wait, in a worker, until a call to another actor is done."""
        import ray

        ray.get(call)

    def resources(self) -> dict[str, float]:
        """What there is in all, by Ray's names."""
        return {
            name: value for name, value in self._ray.cluster_resources().items() if ":" not in name and value < 10**9
        }

    def has(self, needs: Mapping[str, float], workers: int) -> bool:
        """Whether there is enough for so many workers; of a cluster that others use or that grows, always."""
        there = self.resources()
        return self._folder is None or all(value * workers <= there.get(name, 0.0) for name, value in needs.items())

    def close(self) -> None:
        """Disconnect; end what was started for this run."""
        if self._ours:
            with _handlers_kept():
                self._ray.shutdown()
            self._ours = False
        if self._lock is not None:
            self._lock.release()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _death(error: Exception) -> str:
    """What a worker died of, in a few words: Ray says it in many lines."""
    if "creation task" in str(error):
        return one_line(error).rsplit("ray::", 1)[-1][-200:]
    text = str(error).lower()
    if "memory pressure" in text or "low on memory" in text or type(error).__name__ == "OutOfMemoryError":
        return "out of memory: Ray killed it because its machine was running low"
    if "node" in text and ("died" in text or "dead" in text) and "worker exit" not in text:
        return "its machine was lost"
    return "its process was killed, ran out of memory, or crashed"


def _lacking(needs: Mapping[str, float], workers: int, there: Mapping[str, float]) -> str:
    """What this machine lacks, in words; empty where it has enough."""
    needed, has = needs["GPU"] * workers, there.get("GPU", 0.0)
    if needed <= has:
        return ""
    return (
        f"{workers} workers with gpus: {needs['GPU']:g} need {needed:g} GPUs, this machine has {has:g}; lower workers "
        "or gpus, or give the address of a cluster"
    )


def _temporary() -> Path:
    """Where Ray's logs and sockets may lie while a run lasts; a run's own folder may be too deep for sockets."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= _LONGEST else Path("/tmp")  # noqa: S108 - mkdtemp makes a private folder in it


def _remove_leftovers(parent: Path) -> None:
    """Folders of runs that were killed: nobody holds their locks."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(RunError, OSError):
            if folder.stat().st_uid == os.getuid() and (folder / "lock").exists():
                FileLock(folder / "lock").release()
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray puts its own answer to SIGTERM in place of the run's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that was not set from Python can't be set from there
                signal.signal(number, handler)
