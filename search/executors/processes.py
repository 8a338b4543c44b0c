"""Where supernets are trained: in this process, or several at a time, each in its own."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError, RunError, one_line

if TYPE_CHECKING:
    from search.recipes.trust import Trust
    from search.studies.supernet_job import Job, Outcome
    from search.studies.supernet_study import SupernetStudy

Tell = Callable[["Job", int, dict[str, float], bool], None]

_told: Any = None
"""In a worker: the queue that leads to the process which started it."""


def run_jobs(
    study: SupernetStudy, folder: Path, jobs: Sequence[Job], tell: Tell
) -> Iterator[tuple[Job, Outcome, float]]:
    """Train supernets; each with its outcome and its seconds as soon as it is there.

    Args:
        study: what the recipe describes.
        folder: the run's folder; workers read its ``config.yaml``.
        jobs: trainings that do not depend on each other.
        tell: told of epochs, in this process.

    Raises:
        RunError: a worker was lost. Checkpoints are kept, so the run can go on.
        RuntimeError: a training failed.
    """
    workers = min(study.workers, len(jobs))
    if workers < 2:
        for job in jobs:
            began = time.monotonic()
            outcome = study.training.train(folder, job, lambda *what, job=job: tell(job, *what))
            yield job, outcome, time.monotonic() - began
        return
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(told, os.getpid()))
    try:
        futures: dict[Future[tuple[Outcome, float]], Job] = {
            pool.submit(_train, str(folder / "config.yaml"), str(folder), job, study.trust): job for job in jobs
        }
        by_place = {job.place: job for job in jobs}
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            _hear(told, by_place, tell)
            for future in finished:
                try:
                    yield futures[future], *future.result()
                except BrokenProcessPool as error:
                    raise RunError(
                        "a worker process was killed, perhaps for lack of memory; with fewer 'workers' less is needed"
                    ) from error
                except CatchmarkError:
                    raise
                except Exception as error:
                    raise RuntimeError(f"{futures[future].place}: {one_line(error)}") from error
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:  # idle ones end by themselves; one that still trains has its checkpoint
            process.terminate()
        for process in processes:
            process.join()


def _hear(told: Any, jobs: dict[str, Job], tell: Tell) -> None:
    while True:
        try:
            place, *what = told.get_nowait()
        except queue.Empty:
            return
        tell(jobs[place], *what)


def _begin(told: Any, parent: int) -> None:
    """Set up a worker: it ends with the process that started it, however that one ends."""
    global _told
    _told = told

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(recipe: str, folder: str, job: Job, trust: Trust) -> tuple[Outcome, float]:
    """One training, in a worker."""
    began = time.monotonic()
    outcome = _study(recipe, trust).training.train(Path(folder), job, lambda *what: _told.put((job.place, *what)))
    return outcome, time.monotonic() - began


@lru_cache(maxsize=1)
def _study(recipe: str, trust: Trust) -> Any:
    """What the run's recipe describes, read once a worker: its data may take a while."""
    from search.recipes.recipe import load_recipe

    return load_recipe(recipe, trust=trust)[0]
