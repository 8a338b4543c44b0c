"""The probabilistic context encoder (CATCH, sec. 3.1; after PEARL, Rakelly et al. 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.agents.catcher.settings import CatcherSettings
from search.agents.catcher.stacked import StackedMLP
from search.randomness import TrialRandom

_SMALLEST_VARIANCE = 1e-7
"""PEARL's floor of a factor's variance."""


def product_of_gaussians(means: Tensor, variances: Tensor, prior: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and variance of the product of the first 1, 2, ..., n Gaussian factors (CATCH, eq. 1).

    Precisions add up along the factors, so every prefix of a search history is encoded in one pass.

    Args:
        means: ``[..., n, latent]``.
        variances: ``[..., n, latent]``, clamped to at least 1e-7.
        prior: whether the standard normal density is a further factor of each product.

    Returns:
        Means and variances ``[..., n, latent]``; entry ``k`` is the product of factors ``0 .. k``.
    """
    precisions = 1.0 / variances.clamp(min=_SMALLEST_VARIANCE)
    variance = 1.0 / (precisions.cumsum(-2) + float(prior))
    return variance * (precisions * means).cumsum(-2), variance


def kl_to_standard_normal(mean: Tensor, variance: Tensor) -> Tensor:
    """D_KL(N(mean, variance) || N(0, I)), summed over the last dimension."""
    return 0.5 * (mean.square() + variance - variance.log() - 1.0).sum(-1)


class ContextEncoder(nn.Module):
    """Maps (network, normalised reward) pairs to Gaussian factors of the posterior over the context z.

    Args:
        rng: initial weights.
        code_length: length of a network's one-hot code.
        settings: sizes.
        dtype: of the computation.
    """

    def __init__(self, rng: TrialRandom, code_length: int, settings: CatcherSettings, dtype: torch.dtype):
        super().__init__()
        hidden = [settings.hidden] * settings.layers
        self.prior = settings.prior_factor
        self.mlp = StackedMLP(rng, [code_length + 1, *hidden, 2 * settings.latent], dtype)

    def forward(self, codes: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior after each prefix of the history.

        Args:
            codes: one-hot codes ``[trials, n, code]``.
            rewards: normalised rewards ``[trials, n]``.

        Returns:
            Mean and variance ``[trials, n, latent]``; the last entry is the posterior given everything.
        """
        mean, raw = self.mlp(torch.cat([codes, rewards.unsqueeze(-1)], dim=-1)).chunk(2, dim=-1)
        return product_of_gaussians(mean, F.softplus(raw), self.prior)
