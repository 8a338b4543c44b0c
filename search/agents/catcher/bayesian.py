"""A CATCHer that practises on stored source evaluations and adapts by exact Bayesian inference.

Three things differ from the paper's agent, which stays beside it unchanged.

In meta-training, source evaluations are the scarce good, and Algorithm 1 uses each only while its own task lasts, with
a controller that soon proposes little new. Here every source task is a set of random networks with their rewards, kept
and practised on: some of a task's networks are the context, others what the evaluator must predict and the controller
imitate in proportion to their worth (advantage-weighted regression, Peng et al. 2019). PEARL uses its replay buffer so.

In adaptation, the evaluator's prediction is the mean of a Gaussian process whose kernel was learned in practice too
(after few-shot Bayesian optimisation, Wistuba & Grabocka 2021, with a kernel on architectures). A few dozen evaluations
are conditioned on exactly, where gradient steps would use them poorly; and how far the sources can be trusted on this
target is inferred with them.

The network to evaluate is chosen by expected improvement and upper confidence bound in turn, among the controller's
proposals and one-step mutations of the best networks: the controller knows good regions, the neighbourhood of a good
network holds the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from search.agents.catcher.agent import CATCHer, few_threads, normalise, places, read_weights
from search.agents.catcher.gaussian_process import ArchitectureKernel, log_expected_improvement, posterior
from search.agents.catcher.settings import CatcherSettings
from search.spaces.base import SearchSpace

_STRIDE = 7919
"""A prime: multiples of it, modulo a smaller number, visit every context size equally often and in no simple order."""


@dataclass(frozen=True)
class BayesianSettings:
    """What this variant adds; all of it chosen on source tasks, see ``experiments/catch/README.md``.

    Attributes:
        updates_per_network: practice updates after a source task, for each network it evaluated.
        learning_rate: of practice, Adam; falls to a twentieth by a cosine within each task's practice.
        batch: networks predicted and imitated in an update.
        smallest_context: networks in the smallest context practised on.
        largest_context: networks in the largest; a task's remaining networks are predicted.
        temperature: of the imitation weights exp(normalised reward / temperature): lower follows the best more closely.
        mutations: share of the candidates that are one-step mutations of the best networks so far.
        parents: how many best networks are mutated.
        confidence: standard deviations above the mean of the upper confidence bound.
        adapts_on: what the process is conditioned on in a search: ``ranks``, as in practice, which stretch the top of
            a history of good networks; or ``rewards``, standardised, so that the size of an improvement counts. Then
            those more than three standard deviations below the mean are taken to be just there, and the evaluator's
            expectations are centred on the history's. Not measured.
    """

    updates_per_network: int = 3
    learning_rate: float = 1e-3
    batch: int = 64
    smallest_context: int = 3
    largest_context: int = 50
    temperature: float = 0.5
    mutations: float = 0.5
    parents: int = 3
    confidence: float = 1.0
    adapts_on: Literal["ranks", "rewards"] = "ranks"

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if not 0 <= self.mutations <= 1:
            raise ValueError(f"mutations is {self.mutations}, it must lie in [0, 1]")
        if self.adapts_on not in ("ranks", "rewards"):
            raise ValueError(f"adapts_on is '{self.adapts_on}', allowed: ranks, rewards")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, it must be above 0")
        for name in ("updates_per_network", "batch", "parents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not 1 <= self.smallest_context <= self.largest_context:
            raise ValueError(
                f"smallest_context is {self.smallest_context} and largest_context {self.largest_context}; they must be "
                "at least 1, and in this order"
            )


class BayesianCATCHer(CATCHer):
    """CATCHer that practises on stored source evaluations and adapts as a Gaussian process with a learned prior.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        settings: hyper-parameters shared with the CATCHer; the defaults here are this variant's own. Those of PPO,
            prioritised replay and epsilon have no effect: on a target nothing is learned by gradient.
        bayesian: what this variant adds.
        context: as in `CATCHer`.
        init: as in `CATCHer`.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        settings: CatcherSettings = CatcherSettings(hidden=32, initial_networks=3, candidates=300),  # noqa: B008
        bayesian: BayesianSettings = BayesianSettings(),
        context: Literal["posterior", "zero", "random"] = "posterior",
        init: str | None = None,
    ):
        self.bayesian = bayesian
        self.archive: list[tuple[Tensor, Tensor]] = []
        super().__init__(space, trials, seed, settings, context)
        self.kernel = ArchitectureKernel(space, trials, self.dtype)
        self.networks["kernel"] = self.kernel
        with torch.no_grad():  # an agent that has learned from no task expects the same of every network
            self.evaluator.mlp.weights[-1] *= 0.01
        if init is not None:
            self.load_weights(read_weights(init, type(self).__name__, space))

    # ---- asking ----------------------------------------------------------------------------------------------------

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small networks, little practice."""
        return {
            "settings": {"hidden": 16, "initial_networks": 3, "candidates": 40},
            "bayesian": {"updates_per_network": 1},
        }

    def _propose(self, n: int) -> tuple[Tensor, Tensor]:
        if self.adapting:
            return super()._propose(n)
        archs = self.space.sample(self.rng, n)
        return archs, self._uniform_log_probs(archs)

    @property
    def epsilon(self) -> float:
        """Nothing is asked at random: the uncertainty of a prediction says where to explore."""
        return 0.0

    def candidates(self, z: Tensor, count: int) -> Tensor:
        """The controller's proposals, and mutations of the best networks so far."""
        mutants = int(self.bayesian.mutations * count)
        proposed = super().candidates(z, count - mutants)
        best = self.rewards.topk(min(self.bayesian.parents, self.rewards.shape[1]), dim=1).indices
        places = best[:, torch.arange(mutants) % best.shape[1]]
        parents = self.archs.gather(1, places.unsqueeze(-1).expand(-1, -1, self.archs.shape[-1]))
        return torch.cat([proposed, self.space.mutate(parents, self.rng)], 1)

    def preference(self, candidates: Tensor, z: Tensor) -> Tensor:
        """Expected improvement and upper confidence bound in turn, float64 ``[trials, count]``.

        The first refines what is known to be good, the second learns what is not known; which of them serves a target
        better differs from target to target (hence portfolios of both, Hoffman et al. 2011).
        """
        codes, rewards = self._history()
        asked = self.space.one_hot(candidates).to(self.dtype)
        known, expected = self._prior(codes, z), self._prior(asked, z)
        if self.bayesian.adapts_on == "rewards":
            rewards = standardised(self.rewards).to(self.dtype)
            centre = known.mean(1, keepdim=True)
            known, expected = known - centre, expected - centre
        mean, variance = posterior(self.kernel, codes, known, rewards, asked, expected)
        if rewards.shape[1] % 2:
            return mean + self.bayesian.confidence * variance.sqrt()
        return log_expected_improvement(mean, variance, rewards.double().amax(1, keepdim=True))

    def _prior(self, codes: Tensor, z: Tensor) -> Tensor:
        """What the evaluator expects of networks ``[trials, n, code]`` in the context ``[trials, latent]``."""
        return self.evaluator(codes, z.unsqueeze(1).expand(-1, codes.shape[1], -1))

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Extend the history; when a source task is complete, store it and practise."""
        self._settle(archs)
        self.archs = torch.cat([self.archs, archs], 1)
        self.rewards = torch.cat([self.rewards, rewards], 1)
        if not self.adapting and self.archs.shape[1] >= self.budget:
            self.archive.append((self.archs, self.rewards))
            with few_threads(self.trials):
                self._practise(self.bayesian.updates_per_network * self.archs.shape[1])

    def _practise(self, updates: int) -> None:
        """Take ``updates`` steps on the stored tasks, one task after another."""
        rate = self.bayesian.learning_rate
        optimizer = torch.optim.Adam(self.networks.parameters(), lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates, rate / 20)
        worths = [normalise(rewards, self.settings.normalisation) for _, rewards in self.archive]
        for update in range(updates):
            task = update % len(self.archive)
            loss = self.practice_loss(*self.archive[task], worths[task], update)
            self._step(optimizer, loss)
            schedule.step()

    def practice_loss(self, archs: Tensor, rewards: Tensor, worth: Tensor, update: int) -> Tensor:
        """One draw of the objective on a stored task, to be minimised: ``[trials]``.

        A random part of the task's networks is the context, with rewards normalised within it, as they will be in a
        search that has seen just these. The Gaussian process conditioned on them must predict where the rewards of
        other networks fall among them, and the controller is to imitate the better of those.

        Args:
            archs: int64 ``[trials, n, decisions]``.
            rewards: float64 ``[trials, n]``.
            worth: the same normalised over the whole task, ``[trials, n]``.
            update: decides how large the context is, the same for all trials; which networks fill it is drawn.
        """
        held = archs.shape[1]
        smallest = min(self.bayesian.smallest_context, max(1, held // 2))
        largest = max(smallest, min(self.bayesian.largest_context, held // 2))
        size = smallest + update * _STRIDE % (largest - smallest + 1)
        order = self.rng.permutation(held)
        rows = torch.arange(self.trials).unsqueeze(1)
        chosen, others = order[:, :size], order[:, size : size + self.bayesian.batch]
        codes = self.space.one_hot(archs[rows, chosen]).to(self.dtype)
        known = normalise(rewards[rows, chosen], self.settings.normalisation).to(self.dtype)
        mean, variance = self._posterior(codes, known)
        z = self._draw_context(mean[:, -1:], variance[:, -1:]).squeeze(1)

        networks = archs[rows, others]
        asked = self.space.one_hot(networks).to(self.dtype)
        targets = normalise_among(rewards[rows, others], rewards[rows, chosen], self.settings.normalisation)
        predicted, uncertainty = posterior(
            self.kernel, codes, self._prior(codes, z), known, asked, self._prior(asked, z)
        )
        uncertainty = uncertainty + self.kernel.noise()
        surprise = 0.5 * ((targets - predicted).square() / uncertainty + uncertainty.log()).mean(1)

        log_probs, _ = self.controller.log_probs(z.unsqueeze(1).expand(-1, networks.shape[1], -1), networks)
        imitation = (worth[rows, others].to(self.dtype) / self.bayesian.temperature).softmax(1)
        loss = surprise.to(self.dtype) - (imitation * log_probs.sum(-1)).sum(1)
        if self.context == "posterior":
            smallest = min(self.bayesian.smallest_context, size)
            loss = loss + self._kl_penalty(mean, variance, networks.shape[1], smallest)
        return loss

    # ---- carrying over ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The CATCHer's state and the stored tasks."""
        return {**super().state_dict(), "archive": [list(task) for task in self.archive]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self.archive = [(archs, rewards) for archs, rewards in state["archive"]]


def standardised(rewards: Tensor) -> Tensor:
    """Rewards by mean and standard deviation, once more when the worst are drawn up to -3: both ``[trials, n]``.

    A few networks that hardly learn would otherwise be all that the standard deviation sees.
    """
    return normalise(normalise(rewards, "zscore").clamp(min=-3.0), "zscore")


def normalise_among(rewards: Tensor, history: Tensor, how: str) -> Tensor:
    """Rewards on the scale of a history that they are not part of.

    Args:
        rewards: float64 ``[trials, m]``.
        history: float64 ``[trials, n]``.
        how: ``rank``, the normal quantile of the place among the history; or ``zscore``, by its mean and standard
            deviation, no further than 3 away.

    Returns:
        Float64 ``[trials, m]``.
    """
    if how == "zscore":
        mean, deviation = history.mean(1, keepdim=True), history.std(1, correction=0, keepdim=True)
        return ((rewards - mean) / (deviation + 1e-8)).clamp(-3, 3)
    return torch.special.ndtri((places(rewards, history) + 0.5) / (history.shape[1] + 1))
