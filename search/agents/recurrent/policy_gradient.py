"""What agents with a recurrent policy share: a moving baseline, and Adam on weights that are stacked over trials."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from search.agents.catcher.stacked import clip_gradients_per_trial


class MovingBaseline:
    """A bias-corrected exponential moving average of rewards, one a trial.

    Args:
        trials: how many.
        momentum: share of the average that each reward keeps, in [0, 1).
    """

    def __init__(self, trials: int, momentum: float):
        self.momentum = momentum
        self._sum, self._weight = torch.zeros(trials, dtype=torch.float64), 0.0

    @property
    def value(self) -> Tensor:
        """Float64 ``[trials]``; there must have been a reward."""
        return self._sum / self._weight

    def add(self, rewards: Tensor) -> None:
        """Rewards ``[trials, n]``, the oldest first."""
        for reward in rewards.unbind(1):
            self._sum = self.momentum * self._sum + (1 - self.momentum) * reward
            self._weight = self.momentum * self._weight + (1 - self.momentum)

    def advantages(self, rewards: Tensor) -> Tensor:
        """By how many of their standard deviations rewards lie above the average: ``[trials, n]`` to the same.

        Where all are equal there is nothing to learn, and what rounding has left of differences stays small.
        """
        average = self.value.unsqueeze(1)
        spread = rewards.std(dim=1, keepdim=True, correction=0)
        return (rewards - average) / torch.maximum(spread, 1e-8 * average.abs().clamp(min=1.0))

    def state_dict(self) -> dict[str, Any]:
        """Numerator and denominator."""
        return {"sum": self._sum.clone(), "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        self._sum, self._weight = state["sum"].clone(), state["weight"]


class StackedAdam:
    """Adam on a module whose parameters are stacked over trials; each trial's gradient is clipped for itself.

    Args:
        module: whose parameters move.
        learning_rate: Adam's.
        clip: the largest norm of a trial's gradient.
    """

    def __init__(self, module: nn.Module, learning_rate: float, clip: float):
        self.module, self.clip = module, clip
        self._adam = torch.optim.Adam(module.parameters(), lr=learning_rate)

    def step(self, loss: Tensor) -> None:
        """One step down a loss ``[trials]``; no trial's gradient reaches another's weights."""
        self._adam.zero_grad(set_to_none=True)
        loss.sum().backward()
        clip_gradients_per_trial(list(self.module.parameters()), self.clip)
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Weights and moments."""
        return copy.deepcopy({"weights": dict(self.module.state_dict()), "adam": self._adam.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        self.module.load_state_dict(state["weights"])
        self._adam.load_state_dict(copy.deepcopy(state["adam"]))
