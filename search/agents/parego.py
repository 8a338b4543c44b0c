"""ParEGO: a Gaussian process on one random weighting of the objectives after another (Knowles, 2006)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.agents.catcher.gaussian_process import log_expected_improvement
from search.agents.several_objectives import SeveralObjectives
from search.evaluation import Objective
from search.spaces.base import SearchSpace

_NOISE = 1e-2
"""Noise variance beside a signal variance of 1 (assumed)."""


class ParEGO(SeveralObjectives):
    """ParEGO ("ParEGO: A Hybrid Algorithm With On-Line Landscape Approximation", IEEE TEVC 2006).

    The first ``initial`` architectures are random. Then, before each one, weights of the objectives are drawn anew. All
    that was told becomes one number each by the augmented Tchebycheff function of the normalised objectives (eq. 2); a
    Gaussian process is fitted to these, and of some candidates the one with the highest expected improvement is asked
    for. With fewer than two objectives that is plain Bayesian optimisation of the score.

    What differs from the paper: the kernel is ``exp(-differing decisions / scale)``, made for choices instead of
    numbers, its scale the likeliest of a few; candidates are random architectures and mutants of the best by the
    present weights, instead of an evolution; weights are uniform on the simplex, instead of on a lattice of it. What
    breaks a limit counts as worse than everything that keeps all, the more it breaks.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        initial: random architectures before the first model (assumed; the paper has 11 for each decision, less one).
        candidates: random architectures, and as many mutants, that one is chosen of (assumed).
        rho: how much the sum of all objectives counts beside the worst one (0.05 in eq. 2).
        scales: of the kernel, in differing decisions, of which the likeliest is taken (assumed).
        objectives: by name ``max``, ``min`` or an `Objective` with a limit; None for those of the target, whose limits
            count in any case.
        score_metric: the name of the objective that is the score itself; empty for the target's.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        initial: int = 10,
        candidates: int = 50,
        rho: float = 0.05,
        scales: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0),
        objectives: dict[str, str | Objective] | None = None,
        score_metric: str = "",
    ):
        for name, value in {"initial": initial, "candidates": candidates}.items():
            if value < 1:
                raise ValueError(f"ParEGO: {name} is {value}, it must be at least 1")
        if not rho >= 0:
            raise ValueError(f"ParEGO: rho is {rho}, it must be at least 0")
        if not scales or min(scales) <= 0:
            raise ValueError(f"ParEGO: scales is {list(scales)}, at least one number above 0 is needed")
        self.initial, self.candidates, self.rho, self.scales = initial, candidates, rho, tuple(scales)
        super().__init__(space, trials, seed, objectives, score_metric)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A model after a few evaluations, and few candidates."""
        return {"initial": 3, "candidates": 8, "scales": [2.0]}

    def ask(self, n: int = 1) -> Tensor:
        """The candidates with the highest expected improvement, each by weights of its own.

        Returns:
            Int64 ``[trials, n, decisions]``.
        """
        drawn = self.space.sample(self.rng, n * self.candidates)
        # Exponential variates, divided by their sum, are uniform on the simplex.
        weights = -self.rng.uniform(n, len(self._directions)).log()
        if self._codes.shape[1] < self.initial or self._archs.shape[1] < 2:
            chosen = [self.asked(self.first_new(part)) for part in drawn.split(self.candidates, dim=1)]
            return torch.stack(chosen, dim=1)
        worths = [self.scalarised(each / each.sum(1, keepdim=True)) for each in weights.unbind(1)]
        mutants = self.space.mutate(torch.cat([self._parents(worth) for worth in worths], dim=1), self.rng)
        chosen = []
        for worth, *parts in zip(
            worths, mutants.split(self.candidates, 1), drawn.split(self.candidates, 1), strict=True
        ):
            candidates = torch.cat(parts, dim=1)
            chosen.append(self.asked(self.first_new(candidates, self._improvement(candidates, worth))))
        return torch.stack(chosen, dim=1)

    def _parents(self, worth: Tensor) -> Tensor:
        """As many as there are candidates, of the best quarter as many in turn: int64 ``[trials, m, decisions]``."""
        best = worth.argsort(dim=1, descending=True, stable=True)[:, : max(1, self.candidates // 4)]
        places = best[:, torch.arange(self.candidates) % best.shape[1]]
        return self._archs.gather(1, places[..., None].expand(-1, -1, self._archs.shape[-1]))

    def scalarised(self, weights: Tensor) -> Tensor:
        """One number for all that was told, higher is better, normalised: ``[trials, objectives]`` to ``[trials, n]``.

        Args:
            weights: of the objectives, each row of sum 1.
        """
        signs = torch.tensor([1.0 if each == "max" else -1.0 for each in self._directions], dtype=torch.float64)
        losses = -self._values * signs
        usable = self._violation.isfinite()[..., None]
        low = torch.where(usable, losses, torch.inf).amin(1, keepdim=True)
        high = torch.where(usable, losses, -torch.inf).amax(1, keepdim=True)
        normal = torch.where(usable, (losses - low) / (high - low).clamp(min=1e-12), 1.0)
        weighted = normal * weights[:, None]
        loss = weighted.amax(-1) + self.rho * weighted.sum(-1)
        # Beyond the worst that keeps every limit, and no further than twice that: far enough to be avoided.
        missed = self._violation / (1 + self._violation)
        missed = torch.where(self._violation.isfinite(), missed, 1.0)
        loss = torch.where(self._violation > 0, 1 + self.rho + missed, loss)
        mean, deviation = loss.mean(1, keepdim=True), loss.std(1, keepdim=True)
        return (mean - loss) / deviation.clamp(min=1e-9)

    def _improvement(self, candidates: Tensor, worth: Tensor) -> Tensor:
        """The logarithm of the expected improvement: int64 ``[trials, m, decisions]`` to float64 ``[trials, m]``."""
        codes, others = self.space.one_hot(self._archs).double(), self.space.one_hot(candidates).double()
        decisions, rows = self._archs.shape[-1], torch.arange(self.trials)
        differing, across = decisions - codes @ codes.mT, decisions - codes @ others.mT
        factors, residuals, likely = [], [], []
        for scale in self.scales:
            kernel = (-differing / scale).exp()
            factors.append(torch.linalg.cholesky(kernel + _NOISE * torch.eye(kernel.shape[-1], dtype=torch.float64)))
            residuals.append(torch.linalg.solve_triangular(factors[-1], worth[..., None], upper=False))
            # But for a constant the logarithm of the marginal likelihood.
            explained = -0.5 * residuals[-1].square().sum((1, 2))
            likely.append(explained - factors[-1].diagonal(dim1=1, dim2=2).log().sum(1))
        best = torch.stack(likely).argmax(0)
        factor, residual = torch.stack(factors)[best, rows], torch.stack(residuals)[best, rows]
        scales = torch.tensor(self.scales, dtype=torch.float64)[best]
        solved = torch.linalg.solve_triangular(factor, (-across / scales[:, None, None]).exp(), upper=False)
        mean, variance = (solved * residual).sum(1), 1 - solved.square().sum(1)
        return log_expected_improvement(mean, variance.clamp(min=1e-9), worth.amax(1, keepdim=True))
