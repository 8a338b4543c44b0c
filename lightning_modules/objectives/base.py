"""What shared weights learn, and what architectures are ranked by: one file a kind of task, plain torch.

An objective reads its own batches: training and evaluation hand them on as the data made them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Network = Callable[[Any], Any]
"""What turns a batch's inputs into outputs: a network, or a supernet on one path."""


class Judgement(NamedTuple):
    """How good a network is: two scalars on its device.

    Attributes:
        score: higher is better.
        loss: what it is trained by, likewise over all batches.
    """

    score: Tensor
    loss: Tensor


class Objective(ABC):
    """The loss that weights are trained by, and the score that architectures are ranked by."""

    score_name: str

    @abstractmethod
    def loss(self, network: Network, batch: Any) -> Tensor:
        """The mean loss of a network on a batch: a scalar to be minimised."""

    @abstractmethod
    def score(self, network: Network, batches: Iterable[Any]) -> Judgement:
        """How good a network is on all batches together, each of which passes through it once."""

    def images(self, batch: Any) -> int:
        """How many images a batch has; by default a batch is a pair, of which they are the first."""
        return len(batch[0])

    def first(self, batch: Any, count: int) -> Any:
        """A batch of the first images of a batch, with what belongs to them."""
        if isinstance(batch, Tensor):
            return batch[:count]
        return type(batch)(self.first(each, count) for each in batch)


class ImageObjective(Objective):
    """An objective of (images, targets), whose loss and score are means over images."""

    @abstractmethod
    def loss_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """The mean loss of a batch's outputs: a scalar."""

    @abstractmethod
    def score_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """What they score on average: a scalar, higher is better."""

    def loss(self, network: Network, batch: Any) -> Tensor:
        """The mean loss of a network on a batch."""
        images, targets = batch
        return self.loss_of(network(images), targets)

    def score(self, network: Network, batches: Iterable[Any]) -> Judgement:
        """Means over all images."""
        sums, total = torch.zeros(2), 0
        for images, targets in batches:
            outputs, count = network(images), len(images)
            sums = sums.to(outputs.device, non_blocking=True)
            sums += count * torch.stack([self.score_of(outputs, targets), self.loss_of(outputs, targets)])
            total += count
        return Judgement(*sums / total)
