"""A Gaussian process over architectures whose mean and kernel are learned on other tasks, for many trials at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from search.spaces.base import SearchSpace

_JITTER = 1e-4
"""Smallest noise variance: keeps a kernel matrix of near-equal architectures positive definite."""


class ArchitectureKernel(nn.Module):
    """k(a, b) = constant + transfer f(a) f(b) + local exp(-sum_d w_d [a_d != b_d]), one kernel a trial.

    f is the mean function, what other tasks say of an architecture. The transfer term lets the data scale it: if the
    sources mislead, its coefficient is inferred to be near zero. The local term, a product over decisions, is what the
    target's own evaluations say of similar architectures. All variances and the weights w are positive and learned.
    An attribute is one more factor of the local term, exp(-w (a - b)^2 / 2) of its normal quantiles.

    Args:
        space: the decisions.
        trials: independent kernels.
        dtype: of the parameters.
        attributes: how many columns of the codes come after the decisions.
    """

    def __init__(self, space: SearchSpace, trials: int, dtype: torch.dtype, attributes: int = 0):
        super().__init__()

        def positive(start: float, size: int = 1) -> nn.Parameter:
            return nn.Parameter(torch.full((trials, size), math.log(start), dtype=dtype))

        # For normalised rewards, whose standard deviation is 1. Assumed; meta-training fits them.
        self.log_constant, self.log_transfer = positive(0.25), positive(0.25)
        self.log_local, self.log_noise = positive(0.25), positive(0.01)
        self.log_weights = positive(0.5, len(space.sizes) + attributes)
        self.decision = torch.repeat_interleave(torch.arange(len(space.sizes)), torch.tensor(space.sizes))

    def noise(self) -> Tensor:
        """Variance of an observed reward about its true value: ``[trials, 1]``."""
        return self.log_noise.exp() + _JITTER

    def of_trials(self, rows: slice) -> ArchitectureKernel:
        """The kernels of some trials alone; nothing is learned through them."""
        some = ArchitectureKernel.__new__(ArchitectureKernel)
        nn.Module.__init__(some)
        some.decision = self.decision
        for name, value in self.named_parameters():
            some.register_parameter(name, nn.Parameter(value.detach()[rows], requires_grad=False))
        return some

    def covariance(self, codes: Tensor, means: Tensor, others: Tensor, other_means: Tensor) -> Tensor:
        """The kernel of two sets, codes ``[trials, n, code]`` and f ``[trials, n]`` each: ``[trials, n, m]``."""
        weights = self.log_weights.exp()
        choices, decisions = len(self.decision), int(self.decision[-1]) + 1
        chosen = codes[..., :choices] * weights[:, self.decision].unsqueeze(1)
        exponent = chosen @ others[..., :choices].transpose(1, 2) - weights[:, :decisions].sum(1).view(-1, 1, 1)
        if codes.shape[-1] > choices:
            # Weighted by their roots, two points are as far apart as their exponent says.
            roots = (weights[:, decisions:] / 2).sqrt().unsqueeze(1)
            ours, theirs = codes[..., choices:] * roots, others[..., choices:] * roots
            distances = ours.square().sum(-1, keepdim=True) + theirs.square().sum(-1).unsqueeze(1)
            exponent = exponent - (distances - 2 * ours @ theirs.transpose(1, 2)).clamp(min=0)
        local = exponent.exp()
        transfer = means.unsqueeze(2) * other_means.unsqueeze(1)
        constant, slope, height = (
            value.exp().unsqueeze(2) for value in (self.log_constant, self.log_transfer, self.log_local)
        )
        return constant + slope * transfer + height * local

    def variance(self, means: Tensor) -> Tensor:
        """k(a, a) of architectures with mean function f, ``[trials, n]``."""
        return self.log_constant.exp() + self.log_transfer.exp() * means.square() + self.log_local.exp()


def posterior(
    kernel: ArchitectureKernel, codes: Tensor, means: Tensor, rewards: Tensor, others: Tensor, other_means: Tensor
) -> tuple[Tensor, Tensor]:
    """What evaluated architectures say of others (Rasmussen & Williams 2006, algorithm 2.1).

    Args:
        kernel: the covariance.
        codes: one-hot codes of the evaluated ones ``[trials, n, code]``.
        means: their mean function ``[trials, n]``.
        rewards: their normalised rewards ``[trials, n]``.
        others: one-hot codes of those asked about ``[trials, m, code]``.
        other_means: their mean function ``[trials, m]``.

    Returns:
        Mean and variance of the noise-free reward, both ``[trials, m]``.
    """
    # In float64: the choices of a search hang on small differences of these.
    between = kernel.covariance(codes, means, codes, means).double()
    factor = torch.linalg.cholesky(between + torch.diag_embed(kernel.noise().double().expand(-1, codes.shape[1])))
    across = kernel.covariance(codes, means, others, other_means).double()
    known = torch.cat([across, (rewards - means).double().unsqueeze(2)], 2)
    solved = torch.linalg.solve_triangular(factor, known, upper=False)
    explained, residual = solved[..., :-1], solved[..., -1:]
    mean = other_means + (explained * residual).sum(1)
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
