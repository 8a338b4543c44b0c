"""How the shared weights of a supernet learn, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Optional

from torch import nn
from torch.optim import SGD, Optimizer

from lightning_modules.learning_rate_schedule import half_cosine


@dataclass(frozen=True)
class SupernetSettings:
    """How the shared weights learn; the defaults are Landmark Regularization's for NAS-Bench-201 (public scripts).

    Attributes:
        epochs: of the whole training; schedules are fractions of it.
        learning_rate: of the first epoch.
        final_learning_rate: what the cosine over epochs ends at.
        falls_in: epochs in which the cosine falls; then it rises for as many, and so on. 0 for the whole training.
            NAS-Bench-201's code has 10 of 250 for ENAS.
        momentum: of SGD.
        nesterov: whether SGD looks ahead by its momentum.
        weight_decay: of SGD, on all parameters.
        gradient_clip: largest norm of the gradient over all weights.
        average: share that the mean of the weights keeps at each step: architectures are evaluated with this
            exponential moving average, which a step's path does not shake. 0, as published, evaluates with the weights.
        optimizer: makes an optimiser of the weights, as ``torch.optim.Adam`` does, with its own momentum and weight
            decay; the learning rate is the schedule's all the same. None for SGD with those above.
    """

    epochs: int = 400
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    falls_in: int = 0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    gradient_clip: float = 5.0
    average: float = 0.0
    optimizer: Optional[Callable[[Iterable[nn.Parameter]], Optimizer]] = None  # noqa: UP045 - read on Python 3.10

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"epochs": 3}

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}, it must be at least 1")
        if self.falls_in < 0 or (self.nesterov and not self.momentum):
            raise ValueError(
                f"falls_in is {self.falls_in} (at least 0), nesterov {self.nesterov}, momentum {self.momentum} (with "
                "nesterov above 0)"
            )
        if self.gradient_clip <= 0:
            raise ValueError(f"gradient_clip is {self.gradient_clip}, it must be above 0; 'inf' never clips")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is {self.average}, it must be at least 0 and below 1")
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"learning_rate falls from {self.learning_rate} to {self.final_learning_rate}: it can't rise, nor be "
                "below 0"
            )

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimiser of the shared weights."""
        if self.optimizer is not None:
            return self.optimizer(parameters)
        return SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=True,
        )

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, from 0."""
        fall = self.learning_rate - self.final_learning_rate
        return self.final_learning_rate + fall * half_cosine(epoch, self.falls_in or self.epochs)
