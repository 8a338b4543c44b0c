"""The searcher of NASNet and MnasNet: a recurrent controller that learns by PPO, or by REINFORCE."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from search.agents.base import Agent
from search.agents.catcher.controller import ppo_loss
from search.agents.recurrent.policy import RecurrentPolicy
from search.agents.recurrent.policy_gradient import MovingBaseline, StackedAdam
from search.spaces.base import SearchSpace


class RecurrentController(Agent):
    """A recurrent network draws architectures and learns from rewards by policy gradient.

    The controller of NASNet (Zoph et al., CVPR 2018), which MnasNet searches with (Tan et al., CVPR 2019, sec. 4.2).
    Evaluations go into a ring buffer of the last ``buffer``. Whenever ``batch`` new ones are there, the policy takes
    ``updates`` steps: with PPO on the whole buffer, each choice's probability compared with the one it had before the
    first update that saw it, clipped; with REINFORCE a single one on the new ones. Advantages are how far rewards lie
    above a moving average, in standard deviations of the rewards at hand, so that no setting depends on their unit.

    MnasNet's paper publishes no setting of its controller; the source stands behind each. "Tuned": the best
    of 23 settings by the mean of 32 or 64 trials after 200 evaluations, on NAS-Bench-201's CIFAR-100 column of 12
    epochs, of seeds that no table reports. With less entropy it collapses onto a few architectures.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        algorithm: ``ppo`` (NASNet, MnasNet) or ``reinforce`` (Zoph and Le, ICLR 2017).
        hidden: units of each layer [assumed, for speed; recalled of NASNet: 100].
        layers: of the LSTM [recalled of NASNet: 1].
        batch: evaluations between two updates of the policy [tuned].
        buffer: evaluations that an update of PPO learns from, at least ``batch`` [tuned].
        updates: steps of PPO on each buffer [tuned].
        clip: range of PPO's ratio [assumed: the usual .2].
        learning_rate: Adam's [tuned; recalled of NASNet: .00035, for 20,000 evaluations].
        entropy: weight of the policy's mean entropy a decision, in nats [tuned; recalled of NASNet: 1e-5].
        momentum: of the baseline's moving average [recalled of NASNet: .95].
        scale: initial weights are uniform in [-scale, scale] [recalled of NASNet: .1].
        gradient_clip: largest norm of a trial's gradient [assumed].

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        algorithm: Literal["ppo", "reinforce"] = "ppo",
        hidden: int = 32,
        layers: int = 1,
        batch: int = 10,
        buffer: int = 20,
        updates: int = 5,
        clip: float = 0.2,
        learning_rate: float = 0.01,
        entropy: float = 0.1,
        momentum: float = 0.95,
        scale: float = 0.1,
        gradient_clip: float = 1.0,
    ):
        super().__init__(space, trials, seed)
        if algorithm not in ("ppo", "reinforce"):
            raise ValueError(f"RecurrentController: algorithm is '{algorithm}', allowed: ppo, reinforce")
        for name, least, value in (("hidden", 1, hidden), ("layers", 1, layers), ("batch", 1, batch)):
            if value < least:
                raise ValueError(f"RecurrentController: {name} is {value}, at least {least} is needed")
        if buffer < batch or updates < 1:
            raise ValueError(
                f"RecurrentController: buffer is {buffer} and updates is {updates}, at least batch ({batch}) and 1 are "
                "needed"
            )
        if learning_rate <= 0 or clip <= 0 or gradient_clip <= 0 or scale <= 0 or entropy < 0 or not 0 <= momentum < 1:
            raise ValueError(
                "RecurrentController: learning_rate, clip, gradient_clip and scale must be above 0, entropy at least "
                "0, and momentum in [0, 1)"
            )
        self.algorithm, self.batch, self.buffer, self.updates = algorithm, batch, buffer, updates
        self.clip, self.entropy = clip, entropy
        self._sizes = (hidden, layers, scale)
        self._learning_rate, self._momentum, self._gradient_clip = learning_rate, momentum, gradient_clip
        self._forget()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A small network, and few steps of it."""
        return {"hidden": 6, "layers": 1, "batch": 4, "buffer": 8, "updates": 2}

    def _forget(self) -> None:
        self.policy = RecurrentPolicy(self.space, self.rng, *self._sizes)
        self._adam = StackedAdam(self.policy, self._learning_rate, self._gradient_clip)
        self._baseline = MovingBaseline(self.trials, self._momentum)
        steps = len(self.space.decisions)
        self._archs = torch.zeros(self.trials, 0, steps, dtype=torch.long)
        self._rewards = torch.zeros(self.trials, 0, dtype=torch.float64)
        self._log_probs = torch.zeros(self.trials, 0, steps, dtype=torch.float64)
        self._new = 0

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start from a fresh policy, optimiser, baseline and buffer."""
        super().begin_task(budget, adapting)
        self._forget()

    def ask(self, n: int = 1) -> Tensor:
        """Draw from the policy: int64 ``[trials, n, decisions]``."""
        return self.policy.sample(self.rng, n)

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Fill the buffer; whenever a batch of new evaluations is there, update the policy."""
        for k in range(archs.shape[1]):
            self._baseline.add(rewards[:, k : k + 1])
            self._archs = torch.cat([self._archs, archs[:, k : k + 1]], 1)[:, -self.buffer :]
            self._rewards = torch.cat([self._rewards, rewards[:, k : k + 1]], 1)[:, -self.buffer :]
            self._new += 1
            if self._new == self.batch:
                self._update()
                self._new = 0

    def _update(self) -> None:
        """Steps of the policy on what the buffer holds."""
        advantages = self._baseline.advantages(self._rewards)
        if self.algorithm == "reinforce":
            log_probs, entropies = self.policy.log_probs(self._archs[:, -self.batch :])
            surrogate = -(log_probs * advantages[:, -self.batch :].unsqueeze(-1)).mean((1, 2))
            self._adam.step(surrogate - self.entropy * entropies.mean((1, 2)))
            return
        for step in range(self.updates):
            log_probs, entropies = self.policy.log_probs(self._archs)
            if step == 0:  # the policy has not moved since the new evaluations were asked
                known = torch.cat([self._log_probs, log_probs[:, -self.batch :].detach()], 1)
                self._log_probs = known[:, -self.buffer :]
            surrogate = ppo_loss(log_probs, self._log_probs, advantages, self.clip)
            self._adam.step(surrogate - self.entropy * entropies.mean((1, 2)))

    def state_dict(self) -> dict[str, Any]:
        """Policy, optimiser, baseline, and the buffer, oldest evaluation first."""
        return super().state_dict() | {
            "policy": self._adam.state_dict(),
            "baseline": self._baseline.state_dict(),
            "archs": self._archs.clone(),
            "rewards": self._rewards.clone(),
            "log_probs": self._log_probs.clone(),
            "new": self._new,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._adam.load_state_dict(state["policy"])
        self._baseline.load_state_dict(state["baseline"])
        self._archs, self._rewards = state["archs"].clone(), state["rewards"].clone()
        self._log_probs, self._new = state["log_probs"].clone(), state["new"]
