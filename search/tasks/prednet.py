"""The score of a PredNet after training it as its own architecture says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from search.errors import RunError, one_line
from search.evaluation import Architecture, Evaluation
from search.spaces.base import SearchSpace
from search.spaces.prednet import PredNetSpace
from search.tasks.trained import TrainedTask
from search.training.plan import TrainingStage
from search.training.trainer_arguments import TINY_TRAINER

if TYPE_CHECKING:  # jsonargparse resolves these names too, and only when a recipe names this task
    from pytorch_lightning import LightningDataModule, LightningModule


class PredNetTask(TrainedTask):
    """`TrainedTask` of next-frame prediction, in which the architecture may decide how it is trained.

    Of a `PredNetSpace` it decides epochs, batch size, sequences and learning rate; of any other space the task and its
    data do. The score is the skill: by how many % the mean squared error of the predicted frames is below that of
    predicting the frame before again.

    ``catchmark train`` takes batch size and sequences from the data, and the largest number of epochs of the space
    unless it is told another.

    Args:
        space: builds the networks.
        data: a `FramesDataModule`.
        module: wraps a network into a Lightning module; None for `PredNetModule` with its defaults.
        epochs: in place of those that the architecture says, or of 12; None for these.
        score: the logged metric to maximise.
        score_name: the axis label of plots.
        **others: as `TrainedTask`.

    Raises:
        ValueError: an argument is out of range, or there are ``stages``, which only a task of its own can divide.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: LightningDataModule,
        module: Callable[[nn.Module], LightningModule] | None = None,
        epochs: int | None = None,
        score: str = "val_skill",
        score_name: str | None = None,
        **others: Any,
    ):
        if others.get("stages"):
            raise ValueError("stages: a PredNetTask has one, of as many epochs as the architecture says")
        most = space.most_epochs if isinstance(space, PredNetSpace) else 12
        name = score_name or ("skill of the next frame (%)" if score == "val_skill" else score)
        self._says_epochs = epochs is None and isinstance(space, PredNetSpace)
        super().__init__(
            space, data, module, most if epochs is None else epochs, score=score, score_name=name, **others
        )

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Two batches of moving squares."""
        data = {"frames": "moving_squares", "length": 3, "height": 16, "width": 20}
        return {
            "data": {"class_path": "FramesDataModule", "init_args": data},
            "threads": 1,
            "epochs": 1,
            "trainer": dict(TINY_TRAINER),
        }

    def wrap(self, network: nn.Module) -> LightningModule:
        """The Lightning module that trains a network."""
        if self.module is not None:
            return self.module(network)
        from lightning_modules.prednet import PredNetModule

        return PredNetModule(network)

    def train(self, architecture: Architecture, *arguments: Any, **named: Any) -> Evaluation:
        """Train one child as it says; as `TrainedTask.train`."""
        return super(PredNetTask, self._as_said_by(self.space.check(architecture))).train(
            architecture, *arguments, **named
        )

    def _as_said_by(self, architecture: Architecture) -> PredNetTask:
        """The same task with the training that an architecture decides."""
        if not isinstance(self.space, PredNetSpace):
            return self
        said, task, data = self.space.training(architecture), copy.copy(self), cast(Any, self.data)
        try:
            task.data = data.with_sequences(said.batch_size, said.train_sequences, said.val_sequences)
        except (OSError, ValueError) as error:
            raise RunError(f"data: {one_line(error)}") from error  # no architecture has a part in it
        if self._says_epochs:
            task.epochs, task._stages = said.epochs, [TrainingStage(said.epochs)]
        return task
