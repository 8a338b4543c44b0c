"""The score of an architecture after training it as the architecture itself says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from search.errors import RunError, one_line
from search.evaluation import Architecture, Evaluation
from search.spaces.base import SearchSpace
from search.spaces.hyperparameters import DecidesTraining
from search.tasks.trained import TrainedTask
from search.training.plan import TrainingStage

if TYPE_CHECKING:  # jsonargparse resolves these names too, and only when a recipe names this task
    from pytorch_lightning import LightningDataModule, LightningModule


class HyperparameterTask(TrainedTask):
    """`TrainedTask` in which the architecture decides how it is trained, where its space has decisions about that.

    Such a space is one with a `search.spaces.hyperparameters.DecidesTraining.training`, as `PredNetSpace` is. Of any
    other space the task and its data decide, as always.

    ``catchmark train`` takes batch size and numbers of examples from the data, and the largest number of epochs of the
    space unless it is told another.

    Args:
        space: builds the networks.
        data: a Lightning data module; where the space decides on it, one with ``with_settings``, as
            `FramesDataModule` has it.
        module: wraps a network into a Lightning module; None for `ClassificationModule` with its defaults.
        epochs: in place of those that the architecture says; None for these, or for 12 where it says none.
        **others: as `TrainedTask`.

    Raises:
        ValueError: an argument is out of range, or there are ``stages`` beside the epochs that architectures say.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: LightningDataModule,
        module: Callable[[nn.Module], LightningModule] | None = None,
        epochs: int | None = None,
        **others: Any,
    ):
        decides = isinstance(space, DecidesTraining)
        if decides and others.get("stages"):
            raise ValueError("stages: here the architecture says how many epochs there are, in one stage")
        self._says_epochs = decides and epochs is None
        if epochs is None:
            epochs = cast(Any, space).most_epochs if decides else 12
        super().__init__(space, data, module, epochs, **others)

    def train(self, architecture: Architecture, *arguments: Any, **named: Any) -> Evaluation:
        """Train one child as it says; as `TrainedTask.train`."""
        said = self._as_said_by(self.space.check(architecture))
        return super(HyperparameterTask, said).train(architecture, *arguments, **named)

    def _as_said_by(self, architecture: Architecture) -> HyperparameterTask:
        """The same task with the training that an architecture decides."""
        if not isinstance(self.space, DecidesTraining):
            return self
        said, task = self.space.training(architecture), copy.copy(self)
        try:
            task.data = cast(Any, self.data).with_settings(**said.data)
        except (AttributeError, OSError, TypeError, ValueError) as error:
            raise RunError(f"data: {one_line(error)}") from error  # no architecture has a part in it
        if self._says_epochs:
            task.epochs, task._stages = said.epochs, [TrainingStage(said.epochs)]
        return task
