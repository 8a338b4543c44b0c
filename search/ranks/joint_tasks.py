"""Which tasks of an experiment are trained by all ranks together, and how these find the same one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from search.errors import CatchmarkError
from search.experiment import Experiment
from search.interruption import interrupt
from search.launch import Launch
from search.spaces.base import Architecture
from search.study import Study
from search.tasks.base import Evaluation, Task, TaskPool

Address = list[str | int]
"""Where a task is: ``["target", name]`` or ``["pool", number, index, seed]``, then attributes that lead to a part."""
Evaluate = Callable[[Address, Callable[[Architecture, int], Evaluation], Architecture, int], Evaluation]
"""Told of an evaluation: where the task is, how it evaluates by itself, what, and with which seed."""

_OWN_PROCESSES = ("fork", "spawn", "notebook")


def is_joint(task: Task) -> bool:
    """Whether a task trains on several devices, by its ``trainer``: these may be those of other ranks."""
    trainer = getattr(task, "trainer", None) or {}
    return trainer.get("strategy", "auto") != "auto" or _count(trainer, "devices") * _count(trainer, "num_nodes") != 1


def _count(trainer: dict[str, Any], key: str) -> int:
    """How many; 0 where Lightning is to find out."""
    value = trainer.get(key, 1)
    if isinstance(value, (list, tuple)):
        return len(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def parts(task: Task) -> Iterator[tuple[list[str | int], Task]]:
    """The tasks that evaluate networks: the task itself, or those that it asks, with the attributes that lead there."""
    yield [], task
    for name, inner in vars(task).items():
        if isinstance(inner, Task):
            yield from (([name, *path], part) for path, part in parts(inner))


def train_alone(study: Study) -> None:
    """One process: what is to train on one device does so without the wrapper that several would need.

    A target that needs several processes, which nobody has started, is refused: Lightning would start the whole command
    again for each.

    Raises:
        CatchmarkError: the recipe is for several processes.
    """
    if not isinstance(study, Experiment):
        return
    holders: dict[str, list[dict[str, Any]]] = {}
    for name, target in study.targets.items():
        holders[f"targets.{name}"] = [vars(part) for _, part in parts(target)]
    for phase in study.phases:
        holders[f"{phase.search}.pool"] = [getattr(phase.pool, "settings", {})]
    for key, holder in ((key, holder) for key, each in holders.items() for holder in each):
        trainer = holder.get("trainer") or {}
        strategy = str(trainer.get("strategy", "auto"))
        if any(word in strategy for word in _OWN_PROCESSES):
            continue
        devices, nodes = _count(trainer, "devices"), _count(trainer, "num_nodes")
        if not devices and trainer.get("accelerator") != "cpu":
            devices = torch.cuda.device_count()
        if devices * nodes > 1:
            raise CatchmarkError(
                f"{key}: trainer has devices: {devices} and num_nodes: {nodes}, a process for each must be started: "
                f"torchrun --nnodes {nodes} --nproc-per-node {devices} -m search.cli run ..."
            )
        if strategy.startswith("ddp"):
            holder["trainer"] = trainer | {"strategy": "auto"}


class JointTasks:
    """The tasks of an experiment as all ranks see them.

    What is set on a task is set on the object itself, so that whoever holds it (a task that weighs its score, say) goes
    the same way.

    Args:
        study: what the recipe describes, built alike on every rank.
        launch: of this process.
        evaluate: on rank 0, in place of each joint task's own `Task.evaluate`.

    Raises:
        CatchmarkError: the study or a target is not made for that many ranks.
    """

    def __init__(self, study: Study, launch: Launch, evaluate: Evaluate | None = None):
        if not isinstance(study, Experiment):
            raise CatchmarkError(
                f"a {type(study).__name__} is not made for several processes, and {launch.ranks} were started; start "
                "one, in which supernets train one after another, or on all its devices with trainer: {devices: ..., "
                "strategy: ddp_fork}"
            )
        if getattr(study, "executor", None) is not None:
            raise CatchmarkError(
                f"executor: {launch.ranks} processes were started to train each network together; an executor trains "
                "several at a time: start one process, or take the executor out of the recipe"
            )
        self.launch, self._evaluate = launch, evaluate
        self.targets, self.joint = study.targets, False
        self.pools: list[TaskPool] = []
        for phase in study.phases:
            if phase.pool not in self.pools:
                self.pools.append(phase.pool)
        self._draws = [pool.draw for pool in self.pools]
        self._drawn: tuple[Address, Task] | None = None
        for name, task in self.targets.items():
            self._prepare(["target", name], task, f"targets.{name}")
        if evaluate is not None:
            for number, pool in enumerate(self.pools):
                pool.draw = partial(self._draw, number)  # type: ignore[method-assign]

    def find(self, address: Address) -> Task:
        """The task at an address."""
        kind, *place = address
        if kind == "target":
            task, attributes = self.targets[str(place[0])], place[1:]
        else:
            number, index, seed, *attributes = place
            if self._drawn is None or self._drawn[0] != place[:3]:
                self._drawn = None  # one task's data at a time
                self._drawn = place[:3], self._draw(int(number), int(index), int(seed))
            task = self._drawn[1]
        for name in attributes:
            task = getattr(task, str(name))
        return task

    def _draw(self, number: int, index: int, seed: int) -> Task:
        task = self._draws[number](index, seed)
        self._prepare(["pool", number, index, seed], task, "meta_training.pool")
        return task

    def _prepare(self, address: Address, task: Task, key: str) -> None:
        from pytorch_lightning.callbacks import LambdaCallback

        from search.ranks.environment import RankEnvironment

        for path, part in parts(task):
            if not hasattr(part, "trainer"):
                continue
            given = dict(part.trainer or {})
            joint = is_joint(part)
            if joint:
                given = self._devices(given, key)
                # From there on Lightning would answer the end of a rank with a word to the others in the middle of
                # whatever they do.
                terminate = LambdaCallback(on_train_start=lambda *_: signal.signal(signal.SIGTERM, interrupt))
                given["callbacks"] = [*_listed(given.get("callbacks")), terminate]
            environment = RankEnvironment(self.launch if joint else Launch())
            part.trainer = given | {"plugins": [*_listed(given.get("plugins")), environment]}
            if joint and self._evaluate is not None:
                own = part.evaluate
                part.evaluate = partial(self._evaluate, [*address, *path], own)  # type: ignore[method-assign]
            self.joint |= joint

    def _devices(self, given: dict[str, Any], key: str) -> dict[str, Any]:
        """The Trainer's arguments, with how many ranks there are."""
        launch = self.launch
        if any(word in str(given.get("strategy")) for word in _OWN_PROCESSES):
            raise CatchmarkError(
                f"{key}: trainer.strategy '{given['strategy']}' starts processes of its own, and {launch.ranks} are "
                "there already; say strategy: ddp"
            )
        wanted = {"devices": launch.ranks_of_node, "num_nodes": launch.nodes}
        for name, there in wanted.items():
            if name in given and _count(given, name) not in (0, there):
                raise CatchmarkError(
                    f"{key}: trainer has {name}: {given[name]}, but {launch.ranks_of_node} processes were started on "
                    f"each of {launch.nodes} nodes; say {name}: {there}, or start as many as the recipe names"
                )
            if not isinstance(given.get(name), (list, tuple)):  # or it names which
                given[name] = there
        # In a search space there are networks with a branch that leads nowhere. Plain DDP refuses their parameters, and
        # the search would learn that they are bad.
        plain = given.get("strategy", "auto") in ("auto", "ddp")
        return given | {"strategy": "ddp_find_unused_parameters_true"} if plain else given


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
