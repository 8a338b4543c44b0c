"""What a recipe describes, made ready for the ranks that were started, or for one process."""

from __future__ import annotations

from typing import Any

from search.distributed.joint_calls import JointCalls, Together
from search.distributed.joint_tasks import JointTasks
from search.errors import CatchmarkError
from search.runs.launch import Launch
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.studies.supernet_study import SupernetStudy
from search.tasks.base import parts
from search.training.trainer_arguments import arguments_alone, count


def train_alone(study: Study) -> None:
    """One process: what is to train on one device does so without the wrapper that several would need.

    Raises:
        CatchmarkError: the recipe is for several processes, which nobody has started.
    """
    holders: list[tuple[str, dict[str, Any]]] = []
    if isinstance(study, Experiment):
        for name, target in study.targets.items():
            holders += [(f"targets.{name}", vars(part)) for _, part in parts(target)]
        for phase in study.phases:
            holders.append((f"{phase.search}.pool", getattr(phase.pool, "settings", {})))
    elif isinstance(study, SupernetStudy):
        holders.append(("", vars(study)))
        holders += [("truth", vars(part)) for _, part in parts(study.truth)]
    # An executor may start the processes of a candidate itself.
    starts = getattr(getattr(study, "executor", None), "starts_processes", False)
    for key, holder in holders:
        if (trainer := holder.get("trainer")) and not (starts and count(trainer, "devices") > 1):
            holder["trainer"] = arguments_alone(trainer, key)


def joint_calls_of(study: Study, launch: Launch, together: Together | None = None) -> JointCalls:
    """What the ranks do together for a study.

    Args:
        study: what the recipe describes, built alike on every rank.
        launch: of this process.
        together: on rank 0, makes a joint call; None on the others.

    Raises:
        CatchmarkError: the study is not made for that many ranks.
    """
    if isinstance(study, Experiment):
        return JointTasks(study, launch, together)
    if isinstance(study, SupernetStudy):
        from search.distributed.joint_trainings import JointTrainings

        return JointTrainings(study, launch, together)
    raise CatchmarkError(
        f"a {type(study).__name__} is not made for several processes, and {launch.ranks} were started; start one"
    )
