"""Adaptive transfer: what the sources showed is the prior mean of a Gaussian process that the target corrects.

The baseline for agents that meta-learn how to adapt: it spends the same source evaluations, and learns nothing from
them but which architectures are good.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from search.agents.catcher.agent import normalise
from search.agents.catcher.bayesian import standardised
from search.agents.catcher.codes import Codes
from search.agents.catcher.gaussian_process import ArchitectureKernel, posterior
from search.agents.naive_transfer import NaiveTransfer
from search.agents.predictor.acquisition import acquire, most_promising
from search.agents.whole_space import decode
from search.spaces.base import SearchSpace

_CONSTANT, _TRANSFER, _LOCAL, _NOISE, _WEIGHT = 4.0, 1.0, 0.5, 0.1, 0.3
"""Where the kernel begins. Normalised rewards have variance 1 within what was evaluated, which on a target is the best
part of the space: level and slope of the sources' opinion are hardly known there (assumed)."""


class AdaptiveTransfer(NaiveTransfer):
    """The naive transfer's models as a prior mean, and a Gaussian process on what the target says otherwise.

    The prior mean of an architecture is the normal quantile of its place in the ranking of `NaiveTransfer`. On a target
    the normalised reward is a level, plus a slope times that mean, plus a process of the decisions in common, plus
    noise (`search.agents.catcher.gaussian_process`). The kernel's parameters are fitted to the target's own
    evaluations by maximum a posteriori, log-normal about fixed values; nothing is meta-learned. The next architecture
    is the best of the whole space by expected improvement and upper confidence bound in turn. With nothing learned the
    mean is 0 everywhere, and the first architectures are random.

    Args:
        space: what can be asked; at most 2^20 combinations of choices, in larger ones it asks at random.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        trees: of each forest. scikit-learn's default.
        refit: evaluations between two fits of the kernel.
        steps: of Adam in each fit, which starts anew.
        confidence: standard deviations above the mean, of the confidence bound.
        candidates: a larger space is not looked at as a whole, but so many of its architectures, drawn for each choice.
        model: as for `NaiveTransfer`.
        adapts_on: the process is conditioned on ``ranks`` of the target's rewards, their normal quantiles; or on
            ``rewards``, as `BayesianSettings.adapts_on` has them.
        active: as for `NaiveTransfer`.
    """

    batched = False
    learns = True
    caches = NaiveTransfer.caches | {"_kernel"}

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        trees: int = 100,
        refit: int = 5,
        steps: int = 30,
        confidence: float = 1.0,
        candidates: int = 50_000,
        model: Literal["forest", "gp"] = "forest",
        adapts_on: Literal["ranks", "rewards"] = "ranks",
        active: float = 0.0,
    ):
        if adapts_on not in ("ranks", "rewards"):
            raise ValueError(f"AdaptiveTransfer: adapts_on is '{adapts_on}', allowed: ranks, rewards")
        if refit < 1 or steps < 0 or candidates < 1:
            raise ValueError(
                f"AdaptiveTransfer: refit is {refit}, steps {steps}, candidates {candidates}; at least 1, 0 and 1 are "
                "needed"
            )
        self.refit, self.steps, self.confidence, self.count = refit, steps, confidence, candidates
        self.codes, self.adapts_on = Codes(space), adapts_on
        super().__init__(space, trials, seed, trees, model, active)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"trees": 10, "refit": 8, "steps": 3, "candidates": 60}

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Forget the target, beside what the naive transfer forgets."""
        super().begin_task(budget, adapting)
        empty = torch.zeros(self.trials, 0)
        self.told, self.rewards = empty.long(), empty.double()  # codes and rewards of the target
        self.fitted = 0  # evaluations that the kernel was fitted to
        self._kernel: ArchitectureKernel | None = None

    # ---- asking ----------------------------------------------------------------------------------------------------

    def ask(self, n: int = 1) -> Tensor:
        """The most promising of the whole space: int64 ``[trials, n, decisions]``."""
        if not self.adapting or self._all is None:
            return super().ask(n)
        asked = []
        for _ in range(n):
            codes = self._most_promising(self._all)
            self._known = torch.cat([self._known, codes[:, None]], 1)
            asked.append(codes)
        return decode(self.space, torch.stack(asked, 1))

    @torch.no_grad()
    def _most_promising(self, everything: Tensor) -> Tensor:
        """One new code a trial, of equally promising ones any: ``[trials]``."""
        size = len(everything)
        if size > self.count:
            places = self.rng.integers(size, self.count)
        else:
            places = torch.arange(size).expand(self.trials, -1)
        prior, codes = self.prior(), everything[places]
        worth = self._worth(everything, places, prior) if self.told.shape[1] else prior.gather(1, places)
        chosen = most_promising(worth, codes, self._known, self.rng)
        return codes[torch.arange(self.trials), chosen]

    def prior(self) -> Tensor:
        """What the sources say of every architecture: float64 ``[trials, size]``."""
        assert self._all is not None
        size, ranked = len(self._all), self._ranked()
        means = torch.zeros(self.trials, size, dtype=torch.float64)
        if ranked is None:
            return means
        quantiles = torch.special.ndtri((torch.arange(size, 0, -1, dtype=torch.float64) - 0.5) / size)
        return means.scatter_(1, ranked, quantiles.expand(self.trials, -1))

    def _worth(self, everything: Tensor, places: Tensor, prior: Tensor) -> Tensor:
        """What evaluating those in some places of the space is worth: ``[trials, m]``."""
        rewards = self._relative(self.rewards)
        self._fit_kernel(everything, prior)
        found = []
        for trial in range(self.trials):  # one after another: all at once would take gigabytes

            def at(where: Tensor, trial: int = trial) -> tuple[Tensor, Tensor]:
                return self._features(everything[where])[None], prior[trial, where][None]

            told, values = self.told[trial], rewards[trial : trial + 1]
            kernel, asked = self._kernel_of(trial), at(places[trial])
            under_way = self._known[trial][~torch.isin(self._known[trial], told)]
            known = torch.searchsorted(everything, told)
            if len(under_way):  # believed to give what is predicted of them, so that a batch spreads out
                waiting = torch.searchsorted(everything, under_way)
                believed, _ = posterior(kernel, *at(known), values, *at(waiting))
                known, values = torch.cat([known, waiting]), torch.cat([values, believed], 1)
            found.append(posterior(kernel, *at(known), values, *asked))
        mean, variance = (torch.cat(each) for each in zip(*found, strict=True))
        return acquire("in turn", mean, variance.sqrt(), rewards, self.rng, self.confidence)

    def _relative(self, rewards: Tensor) -> Tensor:
        """Rewards relative to each other: float64 ``[trials, n]``."""
        return standardised(rewards) if self.adapts_on == "rewards" else normalise(rewards, "rank").double()

    def _features(self, codes: Tensor) -> Tensor:
        """One-hot codes of the canonical architectures, float32."""
        return self.codes(self.space.canonical(decode(self.space, codes)))

    def _kernel_of(self, trial: int) -> ArchitectureKernel:
        """The kernel of one trial alone."""
        assert self._kernel is not None
        return self._kernel.of_trials(slice(trial, trial + 1)).float()

    def _fit_kernel(self, everything: Tensor, prior: Tensor) -> None:
        """Fit the kernel where it is time; a resumed search fits again what had been fitted."""
        count = self.told.shape[1]
        if not self.fitted or count - self.fitted >= self.refit:
            self.fitted, self._kernel = count, None
        if self._kernel is not None:
            return
        self._kernel = ArchitectureKernel(self.codes, self.trials, torch.float64)
        start = (_CONSTANT, _TRANSFER, _LOCAL, _NOISE, _WEIGHT)
        parameters = list(self._kernel.parameters())
        for parameter, value in zip(parameters, start, strict=True):
            parameter.fill_(value).log_()
        origin = [parameter.clone() for parameter in parameters]
        told = self.told[:, : self.fitted].contiguous()
        features = self._features(told).double()
        means = prior.gather(1, torch.searchsorted(everything, told))
        residual = (self._relative(self.rewards[:, : self.fitted]) - means).unsqueeze(2)
        optimizer = torch.optim.Adam(parameters, lr=0.1)
        for _ in range(self.steps):
            with torch.enable_grad():
                between = self._kernel.covariance(features, means, features, means)
                factor = torch.linalg.cholesky(between + torch.diag_embed(self._kernel.noise().expand(-1, self.fitted)))
                solved = torch.linalg.solve_triangular(factor, residual, upper=False)
                surprise = 0.5 * solved.square().sum() + factor.diagonal(dim1=1, dim2=2).log().sum()
                for parameter, began in zip(parameters, origin, strict=True):
                    surprise = surprise + 0.5 * (parameter - began).square().sum()
                gradients = torch.autograd.grad(surprise, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """On a target remember the rewards too."""
        super().learn(archs, rewards)
        if self.adapting:
            self.told = torch.cat([self.told, self.space.code(self.space.canonical(archs))], 1)
            self.rewards = torch.cat([self.rewards, rewards], 1)

    def state_dict(self) -> dict[str, Any]:
        """The naive transfer's state and the target's evaluations."""
        return super().state_dict() | {
            "told": self.told.clone(),
            "rewards": self.rewards.clone(),
            "fitted": self.fitted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self.told, self.rewards, self.fitted = state["told"].clone(), state["rewards"].clone(), state["fitted"]
        self._kernel = None
