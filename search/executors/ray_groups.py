"""Candidates on Ray that are trained on several devices: groups of processes, which end with their worker.

Lightning starts the processes of a plain ``ddp`` by running the command line again. A worker's command line is Ray's,
so there they are forked instead, or spawned where they can't be forked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from search.errors import CatchmarkError
from search.evaluation import Evaluation
from search.tasks.base import Task, parts
from search.training.trainer_arguments import arguments_of_own_processes

_STRATEGY = re.compile(r"ddp(?:_(?P<how>fork|spawn|notebook))?(?P<unused>_find_unused_parameters_(?:true|false))?")
_LOST = "ProcessExitedException: "


def processes_of(task: Task) -> int:
    """How many processes train a candidate of a task.

    Raises:
        CatchmarkError: they would not be on one machine, or a worker can't start them.
    """
    trainers = [part.trainer for part in _trained(task)]
    for trainer in trainers:
        if trainer.get("num_nodes", 1) != 1:
            raise CatchmarkError(
                f"trainer.num_nodes is {trainer['num_nodes']}, but on Ray a candidate is trained on one machine: leave "
                "num_nodes out; or leave the executor out, and start the recipe with torchrun"
            )
        if _devices(trainer) > 1:
            _own_processes(trainer)
    return max([1, *map(_devices, trainers)])


def groups_of(task: Task) -> list[Any]:
    """The task and those that it asks, as far as each trains on several of the devices that this process sees."""
    import torch

    several = torch.cuda.device_count() > 1  # where Lightning is to find out how many, it takes all
    return [part for part in _trained(task) if (_devices(part.trainer) or 1 + several) > 1]


def forked(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """A Trainer's arguments such that this process starts the others, and they end when it does.

    Raises:
        CatchmarkError: the strategy can't do that.
    """
    return arguments_of_own_processes({**trainer, "strategy": _own_processes(trainer)})


def was_lost(evaluation: Evaluation) -> bool:
    """Whether one of a candidate's processes was killed or crashed; that says nothing about the candidate."""
    return evaluation.status == "failed" and evaluation.reason.startswith(_LOST)


def _trained(task: Task) -> list[Any]:
    """The task and those that it asks, as far as they have a Trainer."""
    return [part for _, part in parts(task) if isinstance(getattr(part, "trainer", None), dict)]


def _devices(trainer: Mapping[str, Any]) -> int:
    """How many devices a candidate is trained on; 0 where Lightning is to find out."""
    given = trainer.get("devices", 1)
    if isinstance(given, str):
        numbers = [each.strip() for each in given.split(",") if each.strip()]
        given = numbers if len(numbers) > 1 else int(numbers[0]) if numbers and numbers[0].isdecimal() else 0
    if isinstance(given, (list, tuple)):
        return len(given)
    return max(0, given) if isinstance(given, int) else 1


def _own_processes(trainer: Mapping[str, Any]) -> str:
    """The strategy by which this process starts the others."""
    import torch

    given = trainer.get("strategy", "auto")
    words = _STRATEGY.fullmatch("ddp" if given == "auto" else str(given))
    if words is None:
        raise CatchmarkError(
            f"trainer.strategy is '{given}', but on Ray a candidate is trained on several devices with ddp, ddp_fork "
            "or ddp_spawn, each also with _find_unused_parameters_true or _false behind it"
        )
    # In a search space there are networks with a branch that leads nowhere, which plain DDP refuses.
    unused = words["unused"] or ("" if words["how"] else "_find_unused_parameters_true")
    # To spawn takes seconds, and whatever the task holds must be pickled; but what has used CUDA can't be forked.
    spawn = words["how"] == "spawn" or torch.cuda.is_initialized()
    return f"ddp_{'spawn' if spawn else 'fork'}{unused}"
