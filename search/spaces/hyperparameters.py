"""Spaces whose architectures also decide how they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from search.evaluation import Architecture


@dataclass(frozen=True)
class Hyperparameters:
    """How an architecture wants to be trained.

    Attributes:
        epochs: how many.
        data: settings of the data module that are to be others, by name, such as ``batch_size``.
    """

    epochs: int
    data: dict[str, Any]


@runtime_checkable
class DecidesTraining(Protocol):
    """A space with decisions about the training.

    What belongs to the optimiser, such as the learning rate, goes with the network that is built.
    """

    most_epochs: int
    """The largest number of epochs that an architecture can want."""

    def training(self, architecture: Architecture) -> Hyperparameters:
        """How an architecture wants to be trained.

        Raises:
            ValueError: not an architecture of this space.
        """
        ...
