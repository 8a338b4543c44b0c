"""What a recipe describes, made ready for one process."""

from __future__ import annotations

from search.studies.base import Study
from search.training.trainer_arguments import arguments_alone, count


def train_alone(study: Study) -> None:
    """One process: what is to train on one device does so without the wrapper that several would need.

    Raises:
        CatchmarkError: the recipe is for several processes, which nobody has started.
    """
    # An executor may start the processes of a candidate itself.
    starts = getattr(getattr(study, "executor", None), "starts_processes", False)
    for key, holder in study.trainers():
        if (trainer := holder.get("trainer")) and not (starts and count(trainer, "devices") > 1):
            holder["trainer"] = arguments_alone(trainer, key)
