"""Some epochs of a supernet's training in one go: what several ranks may do together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.studies.supernet_job import Outcome, Stretch, checkpoint_of, read_outcome
from search.training.fit import fit
from search.training.plan import FitPlan, StopRule, TrainingStage

if TYPE_CHECKING:
    from search.studies.supernet_training import SupernetTraining

Tell = Callable[[int, dict[str, float], bool], None]
"""Told of epochs: how many, what there is to say, and whether they were made now."""
TrainStretch = Callable[[Any, Path, Stretch, Tell], Outcome]
"""What `train_stretch` is, and what several ranks do together: of a `SupernetTraining`."""


def train_stretch(training: SupernetTraining, folder: Path, stretch: Stretch, tell: Tell) -> Outcome:
    """Train to the end of a stretch in this process; the checkpoint has every epoch.

    Args:
        training: what the supernet is trained with.
        folder: the run's folder.
        stretch: which epochs of which training.
        tell: told of every epoch.

    Returns:
        What the training gave so far.
    """
    from search.studies.supernet_watch import SupernetWatch

    job = stretch.job
    checkpoint = checkpoint_of(folder, job.place)
    watch = SupernetWatch(training, stretch, tell)
    plan = FitPlan(
        [TrainingStage(stretch.until)],
        training.seed + job.trial,
        training.trainer,
        {"accelerator": "auto", "use_distributed_sampler": False},
        any_branch=False,
        threads=training.threads,
        stop=StopRule(diverged=False),
        keep=checkpoint,
        resume=None if stretch.start is None else checkpoint_of(folder, stretch.start),
        callbacks=[watch],
    )
    fit(partial(training.make_module, job.method, job.trial), training.data, plan)
    # Of processes that the Trainer has started, the checkpoint is all that is left.
    return watch.outcome if watch.outcome.epochs == stretch.until else read_outcome(checkpoint)
