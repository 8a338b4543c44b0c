"""Processes that join a run: one leads, all evaluate, and where the one that leads is lost another does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search.errors import CatchmarkError
from search.executors.board import Board
from search.executors.joined import JoinedExecutor, JoinedWorker
from search.runs.folders import JOURNAL
from search.runs.locking import FileLock, HeldByAnother
from search.studies.base import Study

_IDLE_SECONDS = 0.5


def join(study: Study, folder: Path, lead: Callable[[], int]) -> int:
    """Work for a run until it is over.

    Args:
        study: what the recipe describes.
        folder: of the run; it is made where it is not there.
        lead: runs the study in the folder, or goes on with it.

    Returns:
        The exit code.

    Raises:
        CatchmarkError: the recipe's executor lets nobody join, or the folder can't be used.
    """
    executor = study.executor
    if not isinstance(executor, JoinedExecutor):
        raise CatchmarkError(
            "--join: the recipe must let others join: executor: {class_path: JoinedExecutor, init_args: {workers: N}}, "
            "with as many evaluations under way as processes will join"
        )
    executor.place(folder)
    board, worker = executor.board, JoinedWorker(executor.board)
    while not board.over:
        with suppress(HeldByAnother):
            FileLock((folder / JOURNAL).with_suffix(".lock")).release()  # nobody leads
            return _lead(board.folder, lead)
        if not worker.work_once():
            time.sleep(_IDLE_SECONDS)
    return 0


def _lead(board: Path, lead: Callable[[], int]) -> int:
    """Lead the run, with a process beside this one that evaluates as those of the others do."""
    beside = multiprocessing.get_context("spawn").Process(target=_work, args=(board, os.getpid()))
    beside.start()
    try:
        return lead()
    finally:
        beside.kill()
        beside.join()


def _work(board: Path, parent: int) -> None:
    """Evaluate as long as the process that leads is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a whole terminal: the process that leads answers it
    worker = JoinedWorker(Board(board))
    threading.Thread(target=_end_with, args=(parent, worker), daemon=True).start()
    while True:
        if not worker.work_once():
            time.sleep(_IDLE_SECONDS)


def _end_with(parent: int, worker: JoinedWorker) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    with suppress(Exception):
        worker.give_back()
    os._exit(1)
