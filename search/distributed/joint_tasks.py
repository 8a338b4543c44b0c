"""Which tasks of an experiment are trained by all ranks together, and how these find the same one."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from search.distributed.joint_calls import JointCalls, Order, RankFailed, Together
from search.errors import CatchmarkError
from search.evaluation import Evaluation, Proposal
from search.runs.launch import Launch
from search.studies.experiment import Experiment
from search.tasks.base import Task, TaskPool, parts
from search.training.trainer_arguments import arguments_of_rank, is_joint

Address = list[str | int]
"""Where a task is: ``["target", name]``, ``["pool", number, index, seed]`` or ``["truth"]``, then attributes that lead
to a part."""


def prepare_task(task: Task, address: Address, key: str, launch: Launch, together: Together | None) -> bool:
    """Set what each part of a task is to tell its Trainer; on rank 0 also that it is evaluated by all.

    What is set is set on the object itself, so that whoever holds it (a task that weighs its score, say) goes the same
    way.

    Args:
        task: the task.
        address: where every rank finds it.
        key: where it stands in the recipe, for messages.
        launch: of this process.
        together: on rank 0, makes a joint call; None on the others.

    Returns:
        Whether a part is evaluated by all ranks.

    Raises:
        CatchmarkError: its ``trainer`` is not made for that many ranks.
    """
    joint = False
    for path, part in parts(task):
        if not hasattr(part, "trainer"):
            continue
        given: dict[str, Any] = part.trainer or {}
        part.trainer = arguments_of_rank(given, launch, key)
        if is_joint(given):
            joint = True
            if together is not None:
                own = part.evaluate_one  # type: ignore[attr-defined]
                part.evaluate_one = partial(_evaluate, together, [*address, *path], own)
    return joint


def find_part(task: Task, attributes: list[str | int]) -> Task:
    """The part of a task that attributes lead to."""
    for name in attributes:
        task = getattr(task, str(name))
    return task


def evaluation_of(task: Task, order: Order) -> Callable[[], str | None]:
    """A follower's part in an evaluation."""
    return lambda: _failure(task.evaluate_one(Proposal.from_plain(order["proposal"])))  # type: ignore[attr-defined]


def _evaluate(
    together: Together,
    address: Address,
    own: Callable[[Proposal], Evaluation],
    proposal: Proposal,
) -> Evaluation:
    """What rank 0 puts in the place of a joint task's own `OneByOne.evaluate_one`."""
    order = {"evaluate": address, "proposal": proposal.plain()}
    began = time.monotonic()
    try:
        return together(order, partial(own, proposal), _failure)
    except RankFailed as failed:
        return Evaluation.failed(str(failed), time.monotonic() - began)


def _failure(evaluation: Evaluation) -> str:
    return "" if evaluation.status == "ok" else evaluation.reason or evaluation.status


class JointTasks(JointCalls):
    """The tasks of an experiment as all ranks see them.

    Args:
        study: what the recipe describes, built alike on every rank.
        launch: of this process.
        together: on rank 0, makes a joint call; None on the others.

    Raises:
        CatchmarkError: the experiment or a target is not made for that many ranks.
    """

    def __init__(self, study: Experiment, launch: Launch, together: Together | None = None):
        if getattr(study, "executor", None) is not None:
            raise CatchmarkError(
                f"executor: {launch.ranks} processes were started to train each network together; an executor trains "
                "several at a time: start one process, or take the executor out of the recipe"
            )
        self.launch, self._together, self.targets = launch, together, study.targets
        self.pools: list[TaskPool] = []
        for phase in study.phases:
            if phase.pool not in self.pools:
                self.pools.append(phase.pool)
        self._draws = [pool.draw for pool in self.pools]
        self._drawn: tuple[Address, Task] | None = None
        joint = [
            prepare_task(task, ["target", name], f"targets.{name}", launch, together)
            for name, task in self.targets.items()
        ]
        if not any(joint) and not self.pools:
            self.nothing = "no target of the recipe has trainer: {strategy: ddp}"
        if together is not None:
            for number, pool in enumerate(self.pools):
                pool.draw = partial(self._draw, number)  # type: ignore[method-assign]

    def find(self, order: Order) -> Callable[[], str | None]:
        """A follower's part in an evaluation."""
        return evaluation_of(self.task(order["evaluate"]), order)

    def task(self, address: Address) -> Task:
        """The task at an address."""
        kind, *place = address
        if kind == "target":
            return find_part(self.targets[str(place[0])], place[1:])
        number, index, seed, *attributes = place
        if self._drawn is None or self._drawn[0] != place[:3]:
            self._drawn = None  # one task's data at a time
            self._drawn = place[:3], self._draw(int(number), int(index), int(seed))
        return find_part(self._drawn[1], attributes)

    def _draw(self, number: int, index: int, seed: int) -> Task:
        task = self._draws[number](index, seed)
        prepare_task(task, ["pool", number, index, seed], "meta_training.pool", self.launch, self._together)
        return task
