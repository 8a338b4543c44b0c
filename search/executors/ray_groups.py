"""Candidates on Ray that are trained on several devices: groups of processes, which end with their worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.errors import CatchmarkError
from search.tasks.base import Evaluation, Task, all_parts
from search.training.trainer_arguments import devices_asked, strategy_of_own_processes

_LOST = "ProcessExitedException: "


def processes_of(task: Task) -> int:
    """How many processes train a candidate of a task.

    Raises:
        CatchmarkError: they would not be on one machine, or a worker can't start them.
    """
    return max([1, *(_processes(part.trainer) for part in all_parts(task))])


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
