"""The supernets of a study, trained by all ranks together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from search.distributed.joint_calls import JointCalls, Order, Together
from search.distributed.joint_tasks import evaluation_of, find_part, prepare_task
from search.distributed.shared_files import see_checkpoint
from search.errors import CatchmarkError
from search.studies.supernet_study import SupernetStudy
from search.training.launch import Launch
from search.training.trainer_arguments import arguments_of_rank, is_joint

if TYPE_CHECKING:
    from search.studies.supernet_job import Stretch
    from search.studies.supernet_stretch import Tell


class JointTrainings(JointCalls):
    """The stretches of a study's trainings, and the evaluations of its truth, as all ranks see them.

    Args:
        study: what the recipe describes, built alike on every rank.
        launch: of this process.
        together: on rank 0, makes a joint call; None on the others.

    Raises:
        CatchmarkError: the study is not made for that many ranks.
    """

    def __init__(self, study: SupernetStudy, launch: Launch, together: Together | None = None):
        if study.workers > 1:
            raise CatchmarkError(
                f"workers: {launch.ranks} processes were started to train each supernet together; {study.workers} "
                "workers train one each: start one process, or say workers: 1"
            )
        self.study, self.launch = study, launch
        joint = is_joint(study.trainer)
        batch = getattr(getattr(study.data, "data", None), "batch_size", None)
        if joint and isinstance(batch, int) and batch % launch.ranks:
            raise CatchmarkError(
                f"data: batch_size is {batch}, which {launch.ranks} ranks can't share evenly; choose a multiple of "
                f"{launch.ranks}"
            )
        study.trainer = arguments_of_rank(study.trainer, launch, "", any_branch=False)
        self._own = study.train_stretch
        if joint and together is not None:
            study.train_stretch = partial(_train, together, self._own)  # type: ignore[method-assign]
        if not prepare_task(study.truth, ["truth"], "truth", launch, together) and not joint:
            self.nothing = "neither the study nor its truth has trainer: {strategy: ddp}"

    def find(self, order: Order) -> Callable[[], str | None]:
        """A follower's part in a training, or in an evaluation of the truth."""
        if "evaluate" in order:
            return evaluation_of(find_part(self.study.truth, order["evaluate"][1:]), order)
        from search.studies.supernet_job import checkpoint_of, stretch_of
        from search.studies.supernet_stretch import read_checkpoint

        stretch, folder = stretch_of(order["train"]), Path(order["folder"])
        if stretch.start is not None:
            path = checkpoint_of(folder, stretch.start)
            see_checkpoint(path, stretch.epochs, lambda: read_checkpoint(path)[1].epochs, self.launch)
        return partial(self._own, folder, stretch, _say_nothing)


def _train(
    together: Together,
    own: Callable[[Path, Stretch, Tell], None],
    folder: Path,
    stretch: Stretch,
    tell: Tell,
) -> None:
    """What rank 0 puts in the place of a joint study's own `SupernetStudy.train_stretch`."""
    order = {"train": asdict(stretch), "folder": str(folder)}
    together(order, partial(own, folder, stretch, tell))


def _say_nothing(epochs: int, values: dict[str, float], new: bool) -> None:
    """Rank 0 tells of epochs."""
