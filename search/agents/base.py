"""The contract of an agent: ask and tell, with a leading trials dimension.

An agent that wants more than architectures and rewards (fidelities, inherited weights, several objectives) overrides
`Agent.propose` and `Agent.observe`, which the loop calls; by default they wrap `ask` and `tell`.

An agent with ``trials=500`` is 500 independent searchers advanced together; a real search is ``trials=1``. Trial ``k``
of an agent with seed ``s`` asks exactly what an agent with seed ``s + k`` and one trial asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from search.errors import RunError
from search.evaluation import Evaluation, Proposal
from search.randomness import TrialRandom
from search.spaces.base import SearchSpace


class Agent(ABC):
    """A searcher.

    All that decides what it asks next belongs in `state_dict`; a search says at its start where something is missing.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
    """

    learns: bool = True
    """Whether rewards change what is asked next: then contract tests want it to beat random search."""
    batched: bool = True
    """Whether many trials cost little more than one; False where they advance one after another."""
    demands: frozenset[str] = frozenset()
    """What it may ask of a task beyond full evaluations of fresh weights: names as in `search.tasks.base.Task.honours`.
    An experiment refuses to begin where a target does not honour all of it."""
    caches: frozenset[str] = frozenset()
    """Attributes that are made anew where they are missing, out of others: they need no place in `state_dict`."""

    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0):
        self.space, self.trials = space, trials
        self.rng = TrialRandom(seed, trials)
        # The worst reward so far stands in for the reward of a failed evaluation; infinite until there is one.
        self._worst = torch.full((trials,), torch.inf, dtype=torch.float64)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Arguments that make it cheap, besides space, trials and seed, as a recipe gives them."""
        return {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        """An agent that says what it proposes has said what it asks."""
        super().__init_subclass__(**arguments)
        if "propose" in vars(cls) and cls.ask is Agent.ask:
            cls.ask = lambda self, n=1: Agent.ask(self, n)  # type: ignore[method-assign]

    def propose(self, n: int = 1) -> list[list[Proposal]]:
        """The next ``n`` proposals of each trial; by default what `ask` asks for, to be evaluated in full.

        It may be asked before it was told of earlier ones, and told of them in any order: with several workers there
        are always evaluations under way.

        Raises:
            RunError: `ask` gives something else than architectures.
        """
        archs, shape = self.ask(n), (self.trials, n, len(self.space.decisions))
        if not isinstance(archs, Tensor) or archs.shape != shape or archs.dtype != torch.int64:
            given = f"{archs.dtype} {list(archs.shape)}" if isinstance(archs, Tensor) else f"a {type(archs).__name__}"
            raise RunError(
                f"ask({n}) of the agent {type(self).__name__} gives {given}, torch.int64 {list(shape)} is needed: "
                "trials, architectures, decisions"
            )
        return [[Proposal(tuple(architecture)) for architecture in row] for row in archs.tolist()]

    def observe(
        self, proposals: Sequence[Sequence[Proposal]], evaluations: Sequence[Sequence[Evaluation]], rewards: Tensor
    ) -> None:
        """Learn from evaluations; by default `tell` what was evaluated and its rewards.

        Args:
            proposals: for each trial as many as were evaluated, in the order of `propose`, or from anywhere else.
            evaluations: the answers, in the same places.
            rewards: float64 ``[trials, n]``, the one number that is to be climbed: the scores, NaN where an evaluation
                failed, and below every feasible evaluation's of the trial where hard limits are missed.
        """
        self.tell(torch.tensor([[each.architecture for each in row] for row in proposals]), rewards)

    @abstractmethod
    def ask(self, n: int = 1) -> Tensor:
        """The next ``n`` architectures to evaluate: int64 ``[trials, n, decisions]``; see `propose`.

        An agent that overrides `propose` need not have it.
        """
        return torch.tensor([[each.architecture for each in row] for row in self.propose(n)])

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
