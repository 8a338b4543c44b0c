"""Learning from what another network says (Hinton et al., 2015), here from the largest path of the same supernet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_modules.objectives.base import Network, Objective


def loss_and_outputs(objective: Objective, network: Network, batch: Any) -> tuple[Tensor, Tensor]:
    """The loss of a network on a batch, and what the network gave for it.

    Raises:
        ValueError: the objective does not run the network once, or it gives more than a tensor.
    """
    given: list[Any] = []

    def remembering(inputs: Any) -> Any:
        given.append(network(inputs))
        return given[-1]

    loss = objective.loss(remembering, batch)
    if len(given) != 1 or not isinstance(given[0], Tensor):
        raise ValueError(
            f"{type(objective).__name__} gives nothing to imitate: a network that runs once and gives logits is "
            "needed; set distillation to 0"
        )
    return loss, given[0]


def imitation_loss(outputs: Tensor, teacher: Tensor) -> Tensor:
    """The cross-entropy of logits to the classes' probabilities by a teacher's.

    Args:
        outputs: ``[batch, classes, ...]``.
        teacher: of the same shape, without a gradient.

    Returns:
        The mean over all but classes.

    Raises:
        ValueError: there are no classes.
    """
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        raise ValueError(f"outputs {list(outputs.shape)} are no logits of classes to imitate; set distillation to 0")
    return torch.nn.functional.cross_entropy(outputs, teacher.softmax(1))
