"""A Gaussian process over encoded architectures, its length scales fitted to each trial's own evaluations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from search.agents.catcher.gaussian_process import posterior
from search.agents.predictor.base import Examples, Model, Predictor
from search.agents.predictor.encodings import Encoding, OneHotEncoding, PathEncoding, SubtreeEncoding

_JITTER = 1e-4
"""Smallest noise variance: keeps a kernel matrix of near-equal architectures positive definite."""
_CONSTANT, _NOISE = 0.25, 0.05
"""Where the variances of constant and noise begin; rewards have variance 1 (assumed, as in BayesianCATCHer)."""


class GaussianProcess(Predictor):
    """k(a, b) = constant + sum over blocks of height exp(-sum over groups of weight |a - b|^2).

    A block is an encoding, a group some of its columns; with one-hot codes the groups are decisions, with subtrees it
    is the kernel of NASBOWL (Ru et al., ICLR 2021) made Gaussian. Heights, weights, constant and noise are fitted by
    maximum a posteriori, log-normal about where they begin, every ``refit`` evaluations; the process is conditioned on
    every evaluation at once.

    Args:
        refit: evaluations between two fits of the kernel.
        steps: of Adam in each fit, which starts anew.
        learning_rate: of these, in natural logarithms.
        spread: standard deviation of the log-normal priors.
    """

    conditions = True

    def __init__(self, refit: int = 5, steps: int = 40, learning_rate: float = 0.1, spread: float = 1.0):
        if refit < 1 or steps < 0:
            raise ValueError(f"GaussianProcess: refit is {refit} and steps {steps}; at least 1 and 0 are needed")
        self.refit, self.steps, self.learning_rate, self.spread = refit, steps, learning_rate, spread

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Few steps, seldom."""
        return {"refit": 8, "steps": 3}

    def encodings(self) -> list[Encoding]:
        """Decisions, subtrees and paths."""
        return [OneHotEncoding(), SubtreeEncoding(), PathEncoding(counts=True)]

    def fit(self, examples: Examples) -> FittedProcess:
        """Find the kernel; condition on the examples."""
        kernel = BlockKernel(examples, self.spread)
        distances = kernel.group_distances(examples.features.double())
        start = kernel.parameters
        moving = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([moving], lr=self.learning_rate)
        with torch.enable_grad():
            for _ in range(self.steps):
                surprise = kernel.surprise(moving, distances, examples.targets)
                (moving.grad,) = torch.autograd.grad(surprise.sum(), [moving])
                optimizer.step()
        kernel.parameters = moving.detach()
        model = FittedProcess(kernel)
        model.condition(examples)
        return model


class BlockKernel:
    """The kernel of every trial; see `GaussianProcess`.

    Args:
        examples: say which columns there are, and how many trials.
        spread: standard deviation of the log-normal priors.

    Attributes:
        parameters: float64 ``[trials, 2 + blocks + groups]``, logarithms of noise, constant, heights, weights.
    """

    def __init__(self, examples: Examples, spread: float = 1.0):
        self.groups, self.spread = examples.groups, spread
        count = int(examples.groups.max()) + 1
        self.block_of = torch.zeros(count, dtype=torch.long).scatter_(0, examples.groups, examples.blocks)
        self.blocks = int(examples.blocks.max()) + 1
        heights = [-math.log(self.blocks)] * self.blocks
        start = torch.tensor([math.log(_NOISE), math.log(_CONSTANT), *heights, *[0.0] * count], dtype=torch.float64)
        self.start = start
        self.parameters = start.repeat(len(examples.targets), 1)

    def of_trial(self, trial: int) -> BlockKernel:
        """The kernel of one trial alone."""
        alone = object.__new__(BlockKernel)
        vars(alone).update(vars(self))
        alone.parameters = self.parameters[trial : trial + 1]
        return alone

    def group_distances(self, features: Tensor) -> Tensor:
        """Squared distances between examples, group by group: ``[groups, trials, n, n]``."""
        distances = []
        for group in range(len(self.block_of)):
            part = features[..., self.groups == group]
            # One trial after another: differences take as much memory as the distances of all columns together.
            distances.append(torch.stack([(one.unsqueeze(1) - one.unsqueeze(0)).square().sum(-1) for one in part]))
        return torch.stack(distances)

    def surprise(self, parameters: Tensor, distances: Tensor, targets: Tensor) -> Tensor:
        """Negative logarithm of the targets' probability and the parameters' prior, up to a constant: ``[trials]``."""
        noise, constant, heights, weights = self._split(parameters)
        between = constant[:, None, None].expand(-1, *distances.shape[2:])
        for block in range(self.blocks):
            inside = (self.block_of == block).nonzero()[:, 0]
            exponent = torch.einsum("tg,gtij->tij", weights[:, inside], distances[inside])
            between = between + heights[:, block, None, None] * (-exponent).exp()
        factor = torch.linalg.cholesky(between + torch.diag_embed(noise[:, None].expand(-1, targets.shape[1])))
        solved = torch.linalg.solve_triangular(factor, targets.unsqueeze(2), upper=False)
        likelihood = 0.5 * solved.square().sum((1, 2)) + factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return likelihood + 0.5 * ((parameters - self.start) / self.spread).square().sum(1)

    # ---- as `search.agents.catcher.gaussian_process.posterior` wants a kernel --------------------------------------

    def noise(self) -> Tensor:
        """Variance of an observed reward about its true value: ``[trials, 1]``."""
        return self._split(self.parameters)[0].unsqueeze(1)

    def covariance(self, codes: Tensor, means: Tensor, others: Tensor, other_means: Tensor) -> Tensor:
        """The kernel of two sets, features ``[trials, n, columns]`` each: ``[trials, n, m]``; means play no part."""
        _, constant, heights, weights = (each.to(codes.dtype) for each in self._split(self.parameters))
        total: Tensor | None = None
        for block in range(self.blocks):
            columns = (self.block_of[self.groups] == block).nonzero()[:, 0]
            a, b = codes[..., columns], others[..., columns]
            weighted = a * weights[:, self.groups[columns]].unsqueeze(1)
            b_weighted = b.square() @ weights[:, self.groups[columns]].unsqueeze(2)
            exponent = (weighted * a).sum(-1, keepdim=True) + b_weighted.transpose(1, 2)
            exponent = torch.baddbmm(exponent, weighted, b.transpose(1, 2), alpha=-2)
            part = heights[:, block, None, None] * exponent.clamp_(min=0).neg_().exp_()
            total = part if total is None else total.add_(part)
        assert total is not None
        return total.add_(constant[:, None, None])

    def variance(self, means: Tensor) -> Tensor:
        """k(a, a), ``[trials, n]``."""
        _, constant, heights, _ = self._split(self.parameters)
        return (constant + heights.sum(1)).unsqueeze(1).expand_as(means)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noise ``[trials]``, constant ``[trials]``, heights ``[trials, blocks]``, weights ``[trials, groups]``."""
        values = parameters.exp()
        return values[:, 0] + _JITTER, values[:, 1], values[:, 2 : 2 + self.blocks], values[:, 2 + self.blocks :]


class FittedProcess(Model):
    """The process conditioned on all evaluations."""

    def __init__(self, kernel: BlockKernel):
        self.kernel = kernel

    def condition(self, examples: Examples) -> None:
        """Take note of all evaluations."""
        self.examples = examples

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior."""
        # One trial after another: the same numbers whatever trials it is with, and no more memory than one needs.
        found = []
        for trial, (known, targets) in enumerate(zip(self.examples.features, self.examples.targets, strict=True)):
            asked = features[trial % len(features)].unsqueeze(0)
            none = torch.zeros(1, len(targets), dtype=torch.float64), torch.zeros(1, asked.shape[1]).double()
            found.append(
                posterior(self.kernel.of_trial(trial), known[None], none[0], targets[None], asked, none[1])  # type: ignore[arg-type]
            )
        mean, variance = (torch.cat(each) for each in zip(*found, strict=True))
        return mean, variance.sqrt()
