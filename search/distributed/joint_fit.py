"""What all ranks do together for a study: the evaluations and stretches that a strategy is named for.

Rank 0 runs a study whose tasks and trainings are the recipe's own with a joint call around them; the others look up
what a call names, and do the same with the recipe's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.distributed.joint_calls import JointCalls, Order, RankFailed, Together
from search.distributed.shared_files import see_checkpoint
from search.errors import CatchmarkError
from search.evaluation import Evaluation, Proposal
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.studies.supernet_study import SupernetStudy
from search.tasks.base import OneByOne, Task, TaskPool, all_parts
from search.training.launch import Launch
from search.training.trainer_arguments import is_joint

if TYPE_CHECKING:
    import torch

    from search.studies.supernet_job import Outcome, Stretch
    from search.studies.supernet_stretch import Tell
    from search.studies.supernet_training import SupernetTraining

Address = list[Any]
"""Where a task is: ``["target", name]``, ``["pool", number, index, seed]`` or ``["truth"]``, then names of parts."""


class StudyCalls(JointCalls):
    """The joint calls of a study.

    Attributes:
        study: what rank 0 runs.
    """

    study: Study


def joint_calls_of(study: Study, launch: Launch, together: Together | None = None) -> StudyCalls:
    """What the ranks do together for a study.

    Args:
        study: what the recipe describes, built alike on every rank.
        launch: of this process.
        together: on rank 0, makes a joint call; None on the others.

    Raises:
        CatchmarkError: the study is not made for that many ranks.
    """
    if study.executor is not None:
        raise CatchmarkError(
            f"executor: {launch.ranks} processes were started to train each network together; an executor, or workers, "
            "train several at a time: start one process, or take the executor and workers out of the recipe"
        )
    if isinstance(study, Experiment):
        calls: StudyCalls = ExperimentCalls(study, together)
    elif isinstance(study, SupernetStudy):
        calls = SupernetCalls(study, launch, together)
    else:
        raise CatchmarkError(
            f"a {type(study).__name__} is not made for several processes, and {launch.ranks} were started; start one"
        )
    study.check_trainers(launch)
    return calls


# ---- tasks ---------------------------------------------------------------------------------------------------------


class JointTask(OneByOne):
    """A task that is evaluated by all ranks together; whatever else it is asked, the task itself answers.

    Args:
        task: on every rank.
        address: where every rank finds it.
        together: makes a joint call.
    """

    def __init__(self, task: Task, address: Address, together: Together):
        self._task, self._address, self._together = task, address, together
        self.space, self.score_name, self.instant = task.space, task.score_name, task.instant
        self.objectives, self.score_metric, self.trainer = task.objectives, task.score_metric, task.trainer
        self.honours, self.keeps_artifact = task.honours, task.keeps_artifact

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._task, name)

    def open(self) -> None:
        """Refuse what the task refuses."""
        self._task.open()

    def evaluate_one(self, proposal: Proposal) -> Evaluation:
        """Evaluate on every rank; where another one fails first, that is why the evaluation has failed."""
        order = {"evaluate": self._address, "proposal": proposal.plain()}
        began = time.monotonic()
        try:
            return self._together(order, partial(_evaluation, self._task, proposal), _failure)
        except RankFailed as failed:
            return Evaluation.failed(str(failed), time.monotonic() - began)

    def all_scores(self) -> torch.Tensor | None:
        """The task's."""
        return self._task.all_scores()

    def all_objectives(self) -> torch.Tensor | None:
        """The task's."""
        return self._task.all_objectives()

    def offered(self, seed: int) -> torch.Tensor | None:
        """The task's."""
        return self._task.offered(seed)


class JointPool(TaskPool):
    """A pool whose tasks are evaluated by all ranks together, where they are to be.

    Args:
        pool: on every rank.
        address: where every rank finds it.
        together: makes a joint call.
    """

    def __init__(self, pool: TaskPool, address: Address, together: Together):
        self._pool, self._address, self._together = pool, address, together
        self.trainer = pool.trainer

    def draw(self, index: int, seed: int) -> Task:
        """The pool's task."""
        return joint_task(self._pool.draw(index, seed), [*self._address, index, seed], self._together)

    def describe(self, index: int, seed: int) -> str:
        """The pool's words."""
        return self._pool.describe(index, seed)

    def source(self, index: int, seed: int) -> str:
        """The pool's source."""
        return self._pool.source(index, seed)


def joint_task(task: Task, address: Address, together: Together) -> Task:
    """A task in which whatever is to be trained by all ranks makes a joint call: the task itself, or parts of it.

    Args:
        task: on every rank.
        address: where every rank finds it.
        together: makes a joint call.
    """
    given = task.parts()
    parts = {name: joint_task(part, [*address, name], together) for name, part in given.items()}
    if any(parts[name] is not given[name] for name in parts):
        task = task.with_parts(parts)
    return JointTask(task, address, together) if is_joint(task.trainer) else task


def _part(task: Task, names: Address) -> Task:
    for name in names:
        task = task.parts()[name]
    return task


def _is_joint(task: Task) -> bool:
    return any(is_joint(part.trainer) for part in all_parts(task))


def _take_part(task: Task, order: Order) -> Callable[[], str | None]:
    """A follower's part in an evaluation."""
    return lambda: _failure(_evaluation(task, Proposal.from_plain(order["proposal"])))


def _evaluation(task: Task, proposal: Proposal) -> Evaluation:
    (evaluation,) = task.evaluate([proposal])
    return evaluation


def _failure(evaluation: Evaluation) -> str:
    return "" if evaluation.status == "ok" else evaluation.reason or evaluation.status


class ExperimentCalls(StudyCalls):
    """The evaluations of an experiment.

    Args:
        study: built alike on every rank.
        together: on rank 0, makes a joint call; None on the others.
    """

    def __init__(self, study: Experiment, together: Together | None):
        self.study, self._targets = study, study.targets
        self._pools: list[TaskPool] = []
        for phase in study.phases:
            if not any(pool is phase.pool for pool in self._pools):
                self._pools.append(phase.pool)
        self._drawn: tuple[Address, Task] | None = None
        if not any(map(_is_joint, study.targets.values())) and not self._pools:
            self.nothing = "no target of the recipe has trainer: {strategy: ddp}"
        if together is not None:
            joint = [JointPool(pool, ["pool", number], together) for number, pool in enumerate(self._pools)]
            self.study = study.with_tasks(
                {name: joint_task(task, ["target", name], together) for name, task in study.targets.items()},
                lambda pool: next(mine for mine, theirs in zip(joint, self._pools, strict=True) if theirs is pool),
            )

    def find(self, order: Order) -> Callable[[], str | None]:
        """A follower's part in an evaluation."""
        return _take_part(self.task(order["evaluate"]), order)

    def task(self, address: Address) -> Task:
        """The recipe's own task at an address."""
        kind, *place = address
        if kind == "target":
            return _part(self._targets[place[0]], place[1:])
        if self._drawn is None or self._drawn[0] != place[:3]:
            self._drawn = None  # one task's data at a time
            self._drawn = place[:3], self._pools[place[0]].draw(place[1], place[2])
        return _part(self._drawn[1], place[3:])


# ---- supernets -----------------------------------------------------------------------------------------------------


class SupernetCalls(StudyCalls):
    """The stretches of a study's trainings, and the evaluations of its truth.

    Args:
        study: built alike on every rank.
        launch: of this process.
        together: on rank 0, makes a joint call; None on the others.

    Raises:
        CatchmarkError: the study is not made for that many ranks.
    """

    def __init__(self, study: SupernetStudy, launch: Launch, together: Together | None):
        self.study, self._training, self._launch = study, study.training, launch
        joint = is_joint(self._training.trainer)
        batch = getattr(getattr(self._training.data, "data", None), "batch_size", None)
        if joint and isinstance(batch, int) and batch % launch.ranks:
            raise CatchmarkError(
                f"data: batch_size is {batch}, which {launch.ranks} ranks can't share evenly; choose a multiple of "
                f"{launch.ranks}"
            )
        if not joint and not _is_joint(study.truth):
            self.nothing = "neither the study nor its truth has trainer: {strategy: ddp}"
        if together is not None:
            own = self._training.train_stretch

            def train_together(training: SupernetTraining, folder: Path, stretch: Stretch, tell: Tell) -> Outcome:
                order = {"train": asdict(stretch), "folder": str(folder)}
                return together(order, partial(own, training, folder, stretch, tell))  # the outcome of rank 0

            self.study = study.with_training(
                replace(
                    self._training,
                    truth=joint_task(study.truth, ["truth"], together),
                    train_stretch=train_together if joint else own,
                )
            )

    def find(self, order: Order) -> Callable[[], str | None]:
        """A follower's part in a training, or in an evaluation of the truth."""
        if "evaluate" in order:
            return _take_part(_part(self._training.truth, order["evaluate"][1:]), order)
        from search.studies.supernet_job import checkpoint_of, read_outcome, stretch_of

        training, stretch, folder = self._training, stretch_of(order["train"]), Path(order["folder"])
        if stretch.start is not None:
            path = checkpoint_of(folder, stretch.start)
            see_checkpoint(path, stretch.outcome.epochs, lambda: read_outcome(path).epochs, self._launch)

        def take_part() -> None:
            training.train_stretch(training, folder, stretch, lambda *_: None)  # rank 0 tells of epochs

        return take_part
