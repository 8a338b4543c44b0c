"""A recurrent policy over the architectures of a space: one masked softmax a decision."""

from __future__ import annotations

import torch
from torch import Tensor

from search.agents.recurrent.lstm import Stacked, StackedLSTM, rows
from search.randomness import TrialRandom
from search.spaces.base import SearchSpace


class RecurrentPolicy(Stacked):
    """An LSTM that reads the choice just made and gives the next decision's logits.

    A step reads a learned vector of the last choice of the last decision, the first one a vector of its own, and every
    decision has its own softmax over the choices that those before it allow.

    Args:
        space: decisions and masks.
        rng: initial weights.
        hidden: units of each layer, and of the vectors that stand for choices.
        layers: of the LSTM.
        scale: initial weights are uniform in [-scale, scale].
    """

    def __init__(self, space: SearchSpace, rng: TrialRandom, hidden: int, layers: int, scale: float):
        super().__init__(rng, scale)
        self.space = space
        choices = space.offsets[-1]
        self.embedding = self.weight(choices + 1, hidden)  # the last row is what the first step reads
        self.lstm = StackedLSTM(rng, hidden, hidden, layers, scale)
        self.heads = self.weight(hidden, choices)
        self.head_bias = self.weight(1, choices)

    def _log_probs(self, output: Tensor, prefix: Tensor) -> Tensor:
        """Of the choices after a prefix: ``[trials, n, hidden]`` to ``[trials, n, choices]``, -inf where ruled out."""
        start, stop = self.space.offsets[prefix.shape[-1] :][:2]
        logits = torch.baddbmm(self.head_bias[..., start:stop], output, self.heads[..., start:stop])
        return logits.masked_fill(~self.space.valid_choices(prefix), -torch.inf).log_softmax(-1)

    @torch.no_grad()
    def sample(self, rng: TrialRandom, n: int) -> Tensor:
        """Draw from the policy: int64 ``[trials, n, decisions]``."""
        archs = torch.zeros(rng.trials, n, 0, dtype=torch.long)
        token = torch.full((rng.trials, n), self.space.offsets[-1])
        state = self.lstm.start(rng.trials, n)
        for offset in self.space.offsets[:-1]:
            output, state = self.lstm.step(rows(self.embedding, token), state)
            choice = rng.categorical(self._log_probs(output, archs).exp())
            archs, token = torch.cat([archs, choice.unsqueeze(-1)], dim=-1), choice + offset
        return archs

    def log_probs(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """How likely the policy is to make each choice of given architectures.

        Args:
            archs: int64 ``[trials, n, decisions]``.

        Returns:
            Log-probabilities ``[trials, n, decisions]``, and the policy's entropy at each decision, the same shape.
        """
        trials, n, steps = archs.shape
        tokens = archs[..., :-1] + torch.tensor(self.space.offsets[: steps - 1], dtype=torch.long)
        first = torch.full((trials, n, 1), self.space.offsets[-1])
        outputs = self.lstm(rows(self.embedding, torch.cat([first, tokens], dim=-1)))
        taken, entropies = [], []
        for t in range(steps):
            log_probs = self._log_probs(outputs[:, :, t], archs[..., :t])
            taken.append(log_probs.gather(-1, archs[..., t : t + 1]).squeeze(-1))
            entropies.append(entropy(log_probs))
        return torch.stack(taken, dim=-1), torch.stack(entropies, dim=-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Of distributions over the last dimension, in nats; choices that are ruled out have -inf and add nothing."""
    finite = log_probs.masked_fill(log_probs.isinf(), 0.0)  # before the product: 0 * -inf has no gradient
    return -(log_probs.exp() * finite).sum(-1)
