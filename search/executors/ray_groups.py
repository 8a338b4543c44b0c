"""Candidates on Ray that are trained on several devices: groups of processes, which end with their worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.errors import CatchmarkError
from search.evaluation import Evaluation
from search.executors.base import Work
from search.tasks.base import Task, all_parts
from search.training.trainer_arguments import devices_asked, strategy_of_own_processes

_LOST = "ProcessExitedException: "


def processes_of(held: Task | Work) -> int:
    """How many processes train a candidate of a task, or do a job of other work.

    Raises:
        CatchmarkError: they would not be on one machine, or a worker can't start them.
    """
    trainers = held.trainers() if isinstance(held, Work) else [part.trainer for part in all_parts(held)]
    return max([1, *map(_processes, trainers)])


def _processes(trainer: Mapping[str, Any]) -> int:
    if trainer.get("num_nodes", 1) != 1:
        raise CatchmarkError(
            f"trainer.num_nodes is {trainer['num_nodes']}, but on Ray a candidate is trained on one machine: leave "
            "num_nodes out; or leave the executor out, and start the recipe with torchrun"
        )
    if (devices := devices_asked(trainer)) > 1:
        strategy_of_own_processes(trainer)
    return devices


def was_lost(evaluation: Evaluation) -> bool:
    """Whether one of a candidate's processes was killed or crashed; that says nothing about the candidate."""
    return evaluation.status == "failed" and evaluation.reason.startswith(_LOST)
