"""REINFORCE: one softmax a decision, moved along the policy gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.spaces.base import SearchSpace


class Reinforce(Agent):
    """Policy gradient on independent softmaxes (Williams, 1992; as a baseline: NAS-Bench-201, NATS-Bench).

    The policy has one logit for each choice of each decision; choices that the earlier ones rule out are masked, and
    the probabilities renormalised over the valid ones. The loss of an architecture is
    ``-log(probability) * (reward - baseline)``, with the reward as it is told, unscaled: Adam divides most of the scale
    out again. The baseline is a bias-corrected exponential moving average that already contains the reward it is
    subtracted from, as in NATS-Bench's ``reinforce.py``; the very first update is therefore zero.

    A batch is one Adam step on the mean gradient; each reward enters the baseline before its own advantage is formed.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        learning_rate: Adam's. Published settings differ widely: .01 for NATS-Bench (its ``run-all.sh``), .5 in the
            command that NAS-Bench-201 documents, out of a grid from .01 to .5. The default is from inside that grid:
            of .01, .05, .1, .2, .3, .5, .7 and 1 it gave the best mean after 50 evaluations on NAS-Bench-201's
            CIFAR-10 table (500 trials); .01 hardly leaves random search in 50 steps, and .5 collapses to a few
            architectures.
        momentum: of the baseline's moving average (NATS-Bench's ``reinforce.py``: .9).
        initial_scale: standard deviation of the initial logits (NATS-Bench's ``reinforce.py``: 1e-3).
        betas: Adam's decay rates (PyTorch's defaults, which NATS-Bench's script uses).
        epsilon: Adam's (PyTorch's default).
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        initial_scale: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ):
        super().__init__(space, trials, seed)
        if not 0 <= momentum < 1:
            raise ValueError(f"Reinforce: momentum is {momentum}, it must be in [0, 1)")
        if learning_rate <= 0:
            raise ValueError(f"Reinforce: learning_rate is {learning_rate}, it must be positive")
        self.learning_rate, self.momentum, self.initial_scale = learning_rate, momentum, initial_scale
        self.betas, self.epsilon = betas, epsilon
        self._forget()

    def _forget(self) -> None:
        self._logits = self.initial_scale * self.rng.normal(self.space.offsets[-1])
        self._first_moment = torch.zeros_like(self._logits)
        self._second_moment = torch.zeros_like(self._logits)
        self._steps = 0
        # Numerator and denominator of the bias-corrected average; the denominator is the same for every trial.
        self._average = torch.zeros(self.trials, dtype=torch.float64)
        self._weight = 0.0

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start from a fresh policy, optimiser and baseline."""
        super().begin_task(budget, adapting)
        self._forget()

    def ask(self, n: int = 1) -> Tensor:
        """Draw from the policy: int64 ``[trials, n, decisions]``."""
        archs = torch.zeros(self.trials, n, 0, dtype=torch.long)
        for _ in self.space.decisions:
            archs = torch.cat([archs, self.rng.categorical(self._probabilities(archs)).unsqueeze(-1)], dim=-1)
        return archs

    def _probabilities(self, prefix: Tensor) -> Tensor:
        """The policy of the next decision: int64 ``[trials, n, t]`` to float64 ``[trials, n, choices]``."""
        start, stop = self.space.offsets[prefix.shape[-1] :][:2]
        logits = self._logits[:, None, start:stop]
        return torch.where(self.space.valid_choices(prefix), logits, -torch.inf).softmax(-1)

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """One policy-gradient step."""
        advantages = []
        for reward in rewards.unbind(1):
            self._average = self.momentum * self._average + (1 - self.momentum) * reward
            self._weight = self.momentum * self._weight + (1 - self.momentum)
            advantages.append(reward - self._average / self._weight)
        # The gradient of -log softmax is (probabilities - one-hot of the choice).
        ascent = []
        for t in range(len(self.space.decisions)):
            probabilities = self._probabilities(archs[..., :t])
            chosen = torch.zeros_like(probabilities).scatter_(-1, archs[..., t : t + 1], 1.0)
            ascent.append(probabilities - chosen)
        gradient = (torch.cat(ascent, dim=-1) * torch.stack(advantages, dim=1).unsqueeze(-1)).mean(1)
        self._adam_step(gradient)

    def _adam_step(self, gradient: Tensor) -> None:
        """Kingma and Ba (2015), algorithm 1; elementwise, so that trials stay independent."""
        self._steps += 1
        first, second = self.betas
        self._first_moment = first * self._first_moment + (1 - first) * gradient
        self._second_moment = second * self._second_moment + (1 - second) * gradient**2
        direction = self._first_moment / (1 - first**self._steps)
        scale = (self._second_moment / (1 - second**self._steps)).sqrt() + self.epsilon
        self._logits = self._logits - self.learning_rate * direction / scale

    def state_dict(self) -> dict[str, Any]:
        """Policy, optimiser and baseline."""
        return super().state_dict() | {
            "logits": self._logits.clone(),
            "first_moment": self._first_moment.clone(),
            "second_moment": self._second_moment.clone(),
            "steps": self._steps,
            "average": self._average.clone(),
            "weight": self._weight,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._logits = state["logits"].clone()
        self._first_moment, self._second_moment = state["first_moment"].clone(), state["second_moment"].clone()
        self._steps = state["steps"]
        self._average, self._weight = state["average"].clone(), state["weight"]
