"""The contract of an agent: ask and tell, with a leading trials dimension.

An agent with ``trials=500`` is 500 independent searchers advanced together; a real search is ``trials=1``. Trial ``k``
of an agent with seed ``s`` asks exactly what an agent with seed ``s + k`` and one trial asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search.randomness import TrialRandom
from search.spaces.base import SearchSpace

if TYPE_CHECKING:
    from search.evaluation import Proposal
    from search.tasks.base import Evaluation


class Agent(ABC):
    """A searcher.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
    """

    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0):
        self.space, self.trials = space, trials
        self.rng = TrialRandom(seed, trials)
        # The worst reward so far stands in for the reward of a failed evaluation; infinite until there is one.
        self._worst = torch.full((trials,), torch.inf, dtype=torch.float64)

    @abstractmethod
    def ask(self, n: int = 1) -> Tensor:
        """The next ``n`` architectures to evaluate: int64 ``[trials, n, decisions]``.

        It may be asked before it was told of earlier ones, and told of them in any order: with several workers there
        are always evaluations under way.
        """

    def tell(self, archs: Tensor, rewards: Tensor) -> None:
        """Learn from evaluated architectures.

        Args:
            archs: int64 ``[trials, n, decisions]``, as asked, or from anywhere else.
            rewards: float64 ``[trials, n]``, higher is better; NaN where the evaluation failed, which counts as the
                worst reward this trial has seen (as 0 while it has seen none).
        """
        if archs.shape != (*rewards.shape, len(self.space.decisions)) or len(rewards) != self.trials:
            raise ValueError(f"tell: archs {tuple(archs.shape)} and rewards {tuple(rewards.shape)} do not match")
        rewards = rewards.double()
        finite = torch.where(rewards.isnan(), torch.inf, rewards)
        self._worst = torch.minimum(self._worst, finite.min(dim=1).values)
        stand_in = torch.where(self._worst.isinf(), 0.0, self._worst)
        self.learn(archs, torch.where(rewards.isnan(), stand_in[:, None], rewards))

    def observe(
        self, proposals: Sequence[Sequence[Proposal]], evaluations: Sequence[Sequence[Evaluation]], rewards: Tensor
    ) -> None:
        """Learn from evaluations ``[trials][n]``; by default from their rewards alone."""
        self.tell(torch.tensor([[each.architecture for each in row] for row in proposals]), rewards)

    def learn(self, archs: Tensor, rewards: Tensor) -> None:  # noqa: B027 - an agent that does not learn is an agent
        """What `tell` does once failed evaluations have a reward; same arguments."""

    def begin_task(self, budget: int, adapting: bool) -> None:
        """A new task starts: forget what belongs to the last one, keep what carries over.

        Args:
            budget: evaluations a trial that this task allows.
            adapting: True on a target task, False on a meta-training task.
        """
        self._worst.fill_(torch.inf)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what is asked next: tensors, numbers, strings, lists and dicts of them."""
        return {"rng": self.rng.state_dict(), "worst": self._worst.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        self.rng.load_state_dict(state["rng"])
        self._worst = state["worst"].clone()


class MetaAgent(Agent):
    """An agent that carries what it learned on some tasks over to others."""

    @abstractmethod
    def weights(self) -> dict[str, Any]:
        """What carries over: tensors and plain values that `torch.load(weights_only=True)` reads back."""

    @abstractmethod
    def load_weights(self, weights: dict[str, Any], first: int = 0) -> None:
        """Start from what another agent of this kind learned.

        The weights' trials are dealt out to this agent's trials in turn, so one meta-trained agent can start them all.

        Args:
            weights: of the other agent.
            first: the one of the weights' trials, in turn, that is dealt out to this agent's first: an agent of one
                trial can start as trial ``first`` of many would.

        Raises:
            ValueError: the weights belong to another space or another network size.
        """
