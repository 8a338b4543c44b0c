"""A CATCHer that learns from stored source evaluations many times over, and proposes mutations of what it found.

Two things differ from the paper's agent, which stays beside it unchanged.

In meta-training, source evaluations are the scarce good, and Algorithm 1 uses each only while its own task lasts, with
a controller that soon proposes little new. Here every source task is a set of random networks with their rewards, kept
and practised on: some of a task's networks are the context, others what the evaluator must score and the controller
imitate in proportion to their worth (advantage-weighted regression, Peng et al. 2019). PEARL uses its replay buffer so.

In adaptation, part of the candidates are one-step mutations of the best network so far: the controller knows good
regions, the neighbourhood of a good network holds the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from search.agents.catcher.agent import CATCHer, few_threads, normalise
from search.agents.catcher.encoder import kl_to_standard_normal
from search.agents.catcher.evaluator import huber
from search.agents.catcher.settings import CatcherSettings
from search.agents.catcher.stacked import clip_gradients_per_trial
from search.spaces.base import SearchSpace

_STRIDE = 7919
"""A prime: multiples of it, modulo a smaller number, visit every context size equally often and in no simple order."""


@dataclass(frozen=True)
class ReplaySettings:
    """What the replaying variant adds; all of it chosen on source tasks, see ``experiments/catch/README.md``.

    Attributes:
        updates_per_network: practice updates after a source task, for each network it evaluated.
        learning_rate: of practice, Adam; falls to a twentieth by a cosine within each task's practice.
        batch: networks scored and imitated in an update.
        smallest_context: networks in the smallest context practised on.
        largest_context: networks in the largest; a task's remaining networks are scored.
        temperature: of the imitation weights exp(normalised reward / temperature): lower follows the best more closely.
        mutations: share of the candidates that are one-step mutations of the best network so far.
    """

    updates_per_network: int = 3
    learning_rate: float = 1e-3
    batch: int = 64
    smallest_context: int = 3
    largest_context: int = 50
    temperature: float = 0.5
    mutations: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if not 0 <= self.mutations <= 1:
            raise ValueError(f"mutations is {self.mutations}, it must lie in [0, 1]")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, it must be above 0")
        if not 1 <= self.smallest_context <= self.largest_context:
            raise ValueError(
                f"smallest_context is {self.smallest_context} and largest_context {self.largest_context}: "
                "at least 1, and in this order"
            )


class ReplayingCATCHer(CATCHer):
    """CATCHer that practises on stored source evaluations and also proposes mutations of its best network.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        settings: hyper-parameters shared with the CATCHer; the defaults here are this variant's own.
        replay: what this variant adds.
        context: where z comes from, as in `CATCHer`.
        init: a weights file of a meta-trained one to start from.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        settings: CatcherSettings = CatcherSettings(  # noqa: B008 - frozen
            hidden=32,
            initial_networks=3,
            candidates=100,
            evaluator_learning_rate=1e-3,
            controller_learning_rate=1e-3,
            epsilon_start_adapting=0.05,
        ),
        replay: ReplaySettings = ReplaySettings(),
        context: Literal["posterior", "zero", "random"] = "posterior",
        init: str | None = None,
    ):
        self.replay_settings = replay
        self.archive: list[tuple[Tensor, Tensor]] = []
        super().__init__(space, trials, seed, settings, context, init)

    def _propose(self, n: int) -> None:
        if not self.adapting:
            self._pending = self.space.sample(self.rng, n)
            self._pending_log_probs = self._uniform_log_probs(self._pending)
            return
        super()._propose(n)

    def candidates(self, z: Tensor, count: int) -> Tensor:
        """The controller's proposals, and mutations of the best network so far."""
        mutants = int(self.replay_settings.mutations * count)
        proposed = super().candidates(z, count - mutants)
        best = self.rewards.argmax(1)
        parents = self.archs[torch.arange(self.trials), best].unsqueeze(1).expand(-1, mutants, -1)
        return torch.cat([proposed, self.space.mutate(parents, self.rng)], 1)

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """On a target as the CATCHer; on a source task store everything, and practise when the task is complete."""
        if self.adapting:
            super().learn(archs, rewards)
            return
        self.archs = torch.cat([self.archs, archs], 1)
        self.rewards = torch.cat([self.rewards, rewards], 1)
        if self.archs.shape[1] >= self.budget:
            self.archive.append((self.archs, self.rewards))
            with few_threads(self.trials):
                self._practise(self.replay_settings.updates_per_network * self.archs.shape[1])

    def _practise(self, updates: int) -> None:
        """Take ``updates`` steps on the stored tasks, one task after another."""
        rate = self.replay_settings.learning_rate
        optimizer = torch.optim.Adam(self.networks.parameters(), lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates, rate / 20)
        for update in range(updates):
            loss = self.practice_loss(*self.archive[update % len(self.archive)], update)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            clip_gradients_per_trial(list(self.networks.parameters()), self.settings.gradient_clip)
            optimizer.step()
            schedule.step()

    def practice_loss(self, archs: Tensor, rewards: Tensor, update: int) -> Tensor:
        """One draw of the objective on a stored task, to be minimised: ``[trials]``.

        A random part of the task's networks is the context, with rewards normalised within it, as they will be in a
        search that has seen just these. Other networks are scored and imitated, with rewards normalised in the task.

        Args:
            archs: int64 ``[trials, n, decisions]``.
            rewards: float64 ``[trials, n]``.
            update: decides how large the context is, the same for all trials; which networks fill it is drawn.
        """
        replay = self.replay_settings
        held = archs.shape[1]
        smallest = min(replay.smallest_context, max(1, held // 2))
        largest = max(smallest, min(replay.largest_context, held // 2))
        size = smallest + update * _STRIDE % (largest - smallest + 1)
        order = self.rng.permutation(held)
        context, scored = order[:, :size], order[:, size : size + replay.batch]
        rows = torch.arange(self.trials).unsqueeze(1)
        context_codes = self.space.one_hot(archs[rows, context]).to(self.dtype)
        context_rewards = normalise(rewards[rows, context], self.settings.normalisation).to(self.dtype)
        mean, variance = self._posterior(context_codes, context_rewards)
        z = self._draw_context(mean[:, -1:], variance[:, -1:]).expand(-1, scored.shape[1], -1)
        targets = normalise(rewards, self.settings.normalisation)[rows, scored].to(self.dtype)
        networks = archs[rows, scored]
        errors = self.evaluator(self.space.one_hot(networks).to(self.dtype), z) - targets
        log_probs, _ = self.controller.log_probs(z, networks)
        imitation = (targets / replay.temperature).softmax(1)
        loss = huber(errors, self.settings.huber_delta).mean(1) - (imitation * log_probs.sum(-1)).sum(1)
        if self.context == "posterior":
            loss = loss + self.settings.kl_weight * kl_to_standard_normal(mean[:, -1], variance[:, -1])
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The CATCHer's state and the stored tasks."""
        return {**super().state_dict(), "archive": [list(task) for task in self.archive]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self.archive = [(archs, rewards) for archs, rewards in state["archive"]]
