"""What the ranks that were started do together for what a recipe describes."""

from __future__ import annotations

from search.distributed.joint_calls import JointCalls, Together
from search.distributed.joint_tasks import JointTasks
from search.errors import CatchmarkError
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.studies.supernet_study import SupernetStudy
from search.training.launch import Launch


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
