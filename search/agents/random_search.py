"""Random search: the baseline that every claim is measured against."""

from __future__ import annotations

from torch import Tensor

from search.agents.base import Agent


class RandomSearch(Agent):
    """Uniform over the valid choices of each decision, with replacement."""

    learns = False

    def ask(self, n: int = 1) -> Tensor:
        """``n`` fresh draws for each trial."""
        return self.space.sample(self.rng, n)
