"""A Gaussian process over architectures whose mean and kernel are learned on other tasks, for many trials at once."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

_JITTER = 1e-4
"""Smallest noise variance: keeps a kernel matrix of near-equal architectures positive definite."""
_DIFFERENCES = 1.0
"""Where the variance of what sources differ in begins (assumed; practice moves it where there are sources enough)."""


class Columns(Protocol):
    """Numbers that a kernel reads of an architecture.

    Attributes:
        blocks: int64 ``[columns]``: which way of seeing an architecture each column belongs to.
        groups: int64 ``[columns]``: which columns have a weight in common, numbered over all blocks.
    """

    blocks: Tensor
    groups: Tensor


class ArchitectureKernel(nn.Module):
    """k(a, b) = constant + transfer f(a) f(b) + sum over blocks of local exp(-sum_g w_g |a_g - b_g|^2 / 2).

    Each trial has a kernel of its own.

    f is the mean function, what other tasks say of an architecture. The transfer term lets the data scale it: if the
    sources mislead, its coefficient is inferred to be near zero. Where each source's opinion is told apart, as its
    deviation d_s from that mean, a term ``differences`` mean_s d_s(a) d_s(b) lets the data weigh the sources against
    each other: a target like one of them is found to be so. The local terms are what the target's own evaluations
    say of similar architectures: a block is one way of seeing them, and within it a product over groups of columns. Of
    one-hot decisions |a_g - b_g|^2 / 2 is whether they differ. All variances and the weights w are positive and
    learned.

    Args:
        columns: what is read.
        trials: independent kernels.
        dtype: of the parameters.
        weighs: whether there is a term of the sources' differences.
    """

    def __init__(self, columns: Columns, trials: int, dtype: torch.dtype, weighs: bool = False):
        super().__init__()
        self.blocks, self.groups = int(columns.blocks.max()) + 1, columns.groups
        self.columns = [(columns.blocks == block).nonzero()[:, 0] for block in range(self.blocks)]

        def positive(start: float, size: int = 1) -> nn.Parameter:
            return nn.Parameter(torch.full((trials, size), math.log(start), dtype=dtype))

        # For normalised rewards, whose standard deviation is 1. Assumed; meta-training fits them.
        self.log_constant, self.log_transfer = positive(0.25), positive(0.25)
        self.log_local, self.log_noise = positive(0.25 / self.blocks, self.blocks), positive(0.01)
        self.log_weights = positive(0.5, int(columns.groups.max()) + 1)
        if weighs:
            self.log_differences = positive(_DIFFERENCES)

    def noise(self) -> Tensor:
        """Variance of an observed reward about its true value: ``[trials, 1]``."""
        return self.log_noise.exp() + _JITTER

    def of_trials(self, rows: slice) -> ArchitectureKernel:
        """The kernels of some trials alone; nothing is learned through them."""
        some = ArchitectureKernel.__new__(ArchitectureKernel)
        nn.Module.__init__(some)
        some.blocks, some.groups, some.columns = self.blocks, self.groups, self.columns
        for name, value in self.named_parameters():
            some.register_parameter(name, nn.Parameter(value.detach()[rows], requires_grad=False))
        return some

    def covariance(self, codes: Tensor, means: Tensor, others: Tensor, other_means: Tensor) -> Tensor:
        """The kernel of two sets, columns ``[trials, n, columns]`` and f ``[trials, n]`` each: ``[trials, n, m]``.

        The columns of the second set may be ``[1, m, columns]`` for all trials. Where sources are weighed, f is
        followed by every source's deviation from it, ``[trials, n, 1 + sources]``.
        """
        weights, heights = self.log_weights.exp(), self.log_local.exp()
        constant, slope = (value.exp().unsqueeze(2) for value in (self.log_constant, self.log_transfer))
        total = constant + slope * (first_of(means).unsqueeze(2) * first_of(other_means).unsqueeze(1))
        if means.dim() == 3 and means.shape[2] > 1:
            share = self.log_differences.exp().unsqueeze(2) / (means.shape[2] - 1)
            total = torch.baddbmm(total, share * means[..., 1:], other_means[..., 1:].transpose(1, 2))
        for block, columns in enumerate(self.columns):
            ours, theirs = (codes, others) if self.blocks == 1 else (codes[..., columns], others[..., columns])
            weight = weights[:, self.groups[columns]]
            weighted = ours * weight.unsqueeze(1)
            squares = (weighted * ours).sum(2, keepdim=True) + (theirs.square() @ weight.unsqueeze(2)).transpose(1, 2)
            exponent = torch.add(weighted @ theirs.transpose(1, 2), squares, alpha=-0.5)
            total = torch.addcmul(total, heights[:, block, None, None], exponent.clamp(max=0).exp())
        return total

    def variance(self, means: Tensor) -> Tensor:
        """k(a, a) of architectures with mean function f, ``[trials, n]``."""
        local = self.log_local.exp().sum(1, keepdim=True)
        total = self.log_constant.exp() + self.log_transfer.exp() * first_of(means).square() + local
        if means.dim() == 3 and means.shape[2] > 1:
            total = total + self.log_differences.exp() * means[..., 1:].square().mean(2)
        return total


def first_of(means: Tensor) -> Tensor:
    """The mean function alone, of ``[trials, n]`` or ``[trials, n, 1 + sources]``: ``[trials, n]``."""
    return means if means.dim() == 2 else means[..., 0]


def posterior(
    kernel: ArchitectureKernel, codes: Tensor, means: Tensor, rewards: Tensor, others: Tensor, other_means: Tensor
) -> tuple[Tensor, Tensor]:
    """What evaluated architectures say of others (Rasmussen & Williams 2006, algorithm 2.1).

    Args:
        kernel: the covariance.
        codes: columns of the evaluated ones ``[trials, n, columns]``.
        means: their mean function ``[trials, n]``.
        rewards: their normalised rewards ``[trials, n]``.
        others: columns of those asked about ``[trials, m, columns]``.
        other_means: their mean function ``[trials, m]``.

    Returns:
        Mean and variance of the noise-free reward, both ``[trials, m]``.
    """
    # In float64: the choices of a search hang on small differences of these.
    between = kernel.covariance(codes, means, codes, means).double()
    factor = torch.linalg.cholesky(between + torch.diag_embed(kernel.noise().double().expand(-1, codes.shape[1])))
    across = kernel.covariance(codes, means, others, other_means).double()
    known = torch.cat([across, (rewards - first_of(means)).double().unsqueeze(2)], 2)
    solved = torch.linalg.solve_triangular(factor, known, upper=False)
    explained, residual = solved[..., :-1], solved[..., -1:]
    mean = first_of(other_means) + (explained * residual).sum(1)
    variance = kernel.variance(other_means) - explained.square().sum(1)
    return mean, variance.clamp(min=1e-9)


def log_expected_improvement(mean: Tensor, variance: Tensor, best: Tensor) -> Tensor:
    """Logarithm of E[max(0, reward - best)], which stays comparable where the expectation itself underflows.

    Args:
        mean: of the reward, ``[trials, n]``.
        variance: of the reward, ``[trials, n]``.
        best: to be improved upon, ``[trials, 1]``.

    Returns:
        float64 ``[trials, n]`` (computed as by Ament et al. 2023).
    """
    deviation = variance.sqrt()
    u = (mean - best) / deviation
    log_density = -0.5 * u.square() - 0.5 * math.log(2 * math.pi)
    body = log_density.exp() + u * torch.special.ndtr(u)
    # Below -1 the two terms nearly cancel; Mills' ratio (1 - Phi) / phi keeps their difference exact until u^2 is lost
    # to rounding, and from there on phi(u) + u Phi(u) is phi(u) / u^2.
    low, lowest = u.clamp(-1e4, -1.0), u.clamp(max=-1e4)
    mills = math.sqrt(math.pi / 2) * torch.special.erfcx(-low / math.sqrt(2))
    tail = log_density + torch.where(u > -1e4, torch.log1p(low * mills), -2 * lowest.neg().log())
    return torch.where(u > -1, body.clamp(min=1e-300).log(), tail) + deviation.log()
