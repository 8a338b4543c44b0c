"""The network evaluator and its prioritised memory (CATCH, sec. 3.3 and 3.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from search.agents.catcher.settings import CatcherSettings
from search.agents.catcher.stacked import StackedMLP
from search.randomness import TrialRandom


class Evaluator(nn.Module):
    """Predicts the normalised reward of a network in a context.

    Args:
        rng: initial weights.
        code_length: length of a network's one-hot code.
        settings: sizes.
        dtype: of the computation.
    """

    def __init__(self, rng: TrialRandom, code_length: int, settings: CatcherSettings, dtype: torch.dtype):
        super().__init__()
        hidden = [settings.hidden] * settings.layers
        self.mlp = StackedMLP(rng, [settings.latent + code_length, *hidden, 1], dtype)

    def forward(self, codes: Tensor, context: Tensor, rows: slice = slice(None)) -> Tensor:
        """Predicted scores ``[trials, n]`` of codes ``[trials, n, code]`` in contexts ``[trials, n, latent]``.

        Codes and contexts may be those of some trials, ``rows``, alone.
        """
        return self.mlp(torch.cat([context, codes], dim=-1), rows).squeeze(-1)


def huber(errors: Tensor, delta: float) -> Tensor:
    """Huber's loss, elementwise: quadratic up to ``delta``, linear beyond (Huber 1964)."""
    size = errors.abs()
    return torch.where(size <= delta, 0.5 * errors.square(), delta * (size - 0.5 * delta))


class PrioritizedReplay:
    """Proportional prioritised experience replay over a search history (Schaul et al. 2015, sec. 3.3 and 3.4).

    It holds priorities only; entry ``i`` is the ``i``-th network of the history.

    Args:
        trials: independent memories.
        alpha: how strongly large errors are preferred; 0 draws uniformly.
    """

    def __init__(self, trials: int, alpha: float):
        self.alpha = alpha
        self.priorities = torch.zeros(trials, 0, dtype=torch.float64)

    def append(self, n: int) -> None:
        """``n`` new entries with the largest priority so far (1 in an empty memory), so that each is soon replayed."""
        trials, held = self.priorities.shape
        largest = self.priorities.amax(1, keepdim=True) if held else torch.ones(trials, 1, dtype=torch.float64)
        self.priorities = torch.cat([self.priorities, largest.expand(-1, n)], dim=1)

    def probabilities(self) -> Tensor:
        """P(i) = p_i^alpha / sum_k p_k^alpha, float64 ``[trials, entries]``."""
        powers = self.priorities**self.alpha
        return powers / powers.sum(1, keepdim=True)

    def sample(self, rng: TrialRandom, fraction: float, beta: float) -> tuple[Tensor, Tensor]:
        """Draw a batch without replacement, one entry after another in proportion to P.

        Args:
            rng: one stream a trial.
            fraction: share of the entries to draw, rounded up.
            beta: strength of the importance correction; 1 corrects fully.

        Returns:
            Entry indices int64 ``[trials, batch]`` and importance weights float64 ``[trials, batch]``, 1 on average:
            with beta 1 a batch's mean of weight times value is that of the whole memory, on average over draws. The
            (N P)^-beta of Schaul et al. holds for draws with replacement; of these it would weigh down just the large
            errors, which are drawn nearly always.
        """
        probabilities = self.probabilities()
        held = probabilities.shape[1]
        # The Gumbel top-k trick: sorting log P + Gumbel noise is sampling without replacement.
        gumbel = -(-rng.uniform(held).log()).log()
        log_p = probabilities.log()
        size = math.ceil(fraction * held)
        best, order = (log_p + gumbel).topk(min(size + 1, held), dim=1)
        chosen = order[:, :size]
        if size == held:
            return chosen, torch.ones_like(chosen, dtype=torch.float64)
        # Given the first that was not drawn, an entry is drawn with this probability (Kool et al. 2019, sec. 4.1).
        inclusion = -torch.expm1(-(log_p.gather(1, chosen) - best[:, size:]).exp())
        return chosen, (size / held / inclusion.clamp_min(1e-300)) ** beta

    def update(self, chosen: Tensor, errors: Tensor) -> None:
        """New priorities |error| + 1e-6 of drawn entries: both ``[trials, batch]``."""
        self.priorities = self.priorities.scatter(1, chosen, errors.abs().double() + 1e-6)
