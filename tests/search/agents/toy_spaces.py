"""Small spaces for the agents' tests, and rewards on them that are exact in floating point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search.contracts.toy_spaces import Grid, integer_reward
from search.evaluation import Architecture
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head

__all__ = ["Grid", "Staircase", "best_reward", "integer_reward"]


class Staircase(SearchSpace):
    """Masked: a choice is never below the one before it by more than one; it has no networks."""

    name = "staircase"
    decisions = tuple(Decision(f"step {t}", tuple(f"height {k}" for k in range(4))) for t in range(5))

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Choices from one below the last one on."""
        if prefix.shape[-1] == 0:
            return torch.ones(*prefix.shape[:-1], 4, dtype=torch.bool)
        return torch.arange(4) >= prefix[..., -1:] - 1

    def build(self, architecture: Architecture, head: Head = OWN_HEAD, *options: Any, **named: Any) -> nn.Module:
        """It has none."""
        raise NotImplementedError


def best_reward(space: SearchSpace, seed: int = 0) -> float:
    """The highest `integer_reward` of a small space."""
    return integer_reward(space, torch.tensor(list(space.enumerate())), seed).max().item()
