"""The controller: a masked autoregressive policy trained with PPO (CATCH, sec. 3.2 and 3.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from search.agents.catcher.settings import CatcherSettings
from search.agents.catcher.stacked import StackedMLP
from search.randomness import TrialRandom
from search.spaces.base import SearchSpace


def ppo_loss(log_probs: Tensor, behaviour_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """The clipped surrogate of PPO, negated so that it is minimised (Schulman et al. 2017, eq. 7).

    Args:
        log_probs: of each action under the present policy ``[trials, n, decisions]``.
        behaviour_log_probs: under the policy that took it, the same shape.
        advantages: ``[trials, n]``; every action of a network has the network's normalised reward (CATCH, sec. 3.2).
        clip: clipping range of the probability ratio.

    Returns:
        ``[trials]``: the mean over networks and actions.
    """
    ratio = (log_probs - behaviour_log_probs).exp()
    advantages = advantages.unsqueeze(-1)
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -surrogate.mean(dim=(-2, -1))


class Controller(nn.Module):
    """A policy over architectures given the context z.

    At step t the input is z beside the one-hot blocks of the decisions taken so far, untaken ones being zero. The
    output has one block of logits a decision; invalid choices are masked before the softmax (the reading of "zeroing
    out their probabilities" that keeps them at exactly zero).

    Args:
        space: decisions and masks.
        rng: initial weights.
        settings: sizes.
        dtype: of the computation.
    """

    def __init__(self, space: SearchSpace, rng: TrialRandom, settings: CatcherSettings, dtype: torch.dtype):
        super().__init__()
        self.space, self.dtype, self.floor = space, dtype, settings.uniform_floor
        code_length = space.offsets[-1]
        hidden = [settings.hidden] * settings.layers
        # A last layer near zero: the first policy is close to uniform over the valid choices.
        self.mlp = StackedMLP(rng, [settings.latent + code_length, *hidden, code_length], dtype, last_scale=0.01)

    def _masked_log_probs(self, logits: Tensor, prefix: Tensor, t: int) -> Tensor:
        """Log-probabilities of decision ``t`` from the full block of logits: ``[trials, n, choices]``."""
        block = logits[..., self.space.offsets[t] : self.space.offsets[t + 1]]
        valid = self.space.valid_choices(prefix)
        log_probs = block.masked_fill(~valid, -torch.inf).log_softmax(-1)
        if not self.floor:
            return log_probs
        even = (self.floor / valid.sum(-1, keepdim=True).to(log_probs.dtype)).log()
        # What is ruled out has probability 0 and no gradient.
        mixed = torch.logaddexp(log_probs.masked_fill(~valid, 0.0) + math.log1p(-self.floor), even)
        return mixed.masked_fill(~valid, -torch.inf)

    @torch.no_grad()
    def sample(self, context: Tensor, rng: TrialRandom, n: int) -> Tensor:
        """``n`` architectures a trial.

        Args:
            context: z, ``[trials, latent]``.
            rng: one stream a trial.
            n: how many.

        Returns:
            Int64 ``[trials, n, decisions]``.
        """
        context = context.unsqueeze(1).expand(-1, n, -1)
        archs = torch.zeros(context.shape[0], n, 0, dtype=torch.long)
        for t in range(len(self.space.sizes)):
            code = self.space.one_hot(archs).to(self.dtype)
            log_probs = self._masked_log_probs(self.mlp(torch.cat([context, code], dim=-1)), archs, t)
            archs = torch.cat([archs, rng.categorical(log_probs.exp()).unsqueeze(-1)], dim=-1)
        return archs

    def log_probs(self, context: Tensor, archs: Tensor) -> tuple[Tensor, Tensor]:
        """How likely the policy is to take each action of given architectures.

        Args:
            context: z of each architecture, ``[trials, n, latent]``.
            archs: int64 ``[trials, n, decisions]``.

        Returns:
            Log-probabilities ``[trials, n, decisions]`` and the policy's entropy at each decision, the same shape.
        """
        trials, n, steps = archs.shape
        # All steps of all networks in one product: step t sees the code of the first t decisions.
        seen = torch.arange(self.space.offsets[-1]) < torch.tensor(self.space.offsets[:steps]).unsqueeze(-1)
        codes = (self.space.one_hot(archs).unsqueeze(2) * seen).to(self.dtype)
        inputs = torch.cat([context.unsqueeze(2).expand(-1, -1, steps, -1), codes], dim=-1)
        logits = self.mlp(inputs.reshape(trials, n * steps, -1)).reshape(trials, n, steps, -1)
        taken, entropies = [], []
        for t in range(steps):
            log_probs = self._masked_log_probs(logits[:, :, t], archs[..., :t], t)
            taken.append(log_probs.gather(-1, archs[..., t : t + 1]).squeeze(-1))
            # Masked entries are replaced before the product, since 0 * -inf has no gradient.
            finite = log_probs.masked_fill(log_probs.isinf(), 0.0)
            entropies.append(-(log_probs.exp() * finite).sum(-1))
        return torch.stack(taken, dim=-1), torch.stack(entropies, dim=-1)
