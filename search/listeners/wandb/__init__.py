"""Weights & Biases: what a run's listeners log there.

Offline unless ``WANDB_MODE`` says otherwise: the data lie in the run's folder until ``wandb sync`` sends them. Whatever
happens to W&B, the search goes on: the journal has everything.

How data walks: the loop tells its listeners what is safe in the journal. `searches` makes a W&B run of every search,
`trainings` of every supernet (and, for ``catchmark train``, of what was found), `children`, where the recipe asks for
it, of every child network, and `sweep`, where a W&B agent started the run, of the whole of it; they share a
`connection`. All W&B runs of a recipe are one group.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.listeners.wandb.children import ChildRuns
from search.listeners.wandb.connection import WandbConnection
from search.listeners.wandb.searches import SearchRuns
from search.listeners.wandb.sweep import SweepRun, take_sweep
from search.listeners.wandb.trainings import TrainingRuns

if TYPE_CHECKING:
    from search.loop.search import Listener
    from search.studies.base import Study

__all__ = ["wandb_listeners"]


def wandb_listeners(folder: Path, study: Study, config: dict[str, Any]) -> list[Listener]:
    """Who logs a run to W&B.

    Args:
        folder: the run's folder.
        study: what the recipe describes.
        config: the resolved recipe.

    Raises:
        CatchmarkError: ``WANDB_MODE`` is none of W&B's modes.
    """
    connection, sweep = WandbConnection(folder, study.name), take_sweep()
    listeners: list[Listener] = [
        SearchRuns(connection, study.space, config),
        TrainingRuns(connection, study.space, study.seed, config),
    ]
    if study.log_children:
        listeners.append(ChildRuns(connection, study.space, config))
    if sweep is not None:
        tags = [study.space.name, f"seed {study.seed}"]
        listeners.append(SweepRun(connection, sweep, config, tags))
    return listeners
