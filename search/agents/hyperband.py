"""Hyperband: successive halving that begins at one level after another (Li et al., 2018)."""

from __future__ import annotations

import math

from search.agents.successive_halving import SuccessiveHalving


class Hyperband(SuccessiveHalving):
    """Hyperband ("A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 2018, algorithm 1).

    Where low fidelities mislead, successive halving throws the best away. So brackets take turns: the first begins with
    many architectures at the lowest level, the next with fewer one level up, the last with some at the full fidelity.
    With ``s + 1`` levels from a bracket's first on, ``ceil((s_max + 1) / (s + 1) * eta^s)`` begin (or, where ``width``
    is given, ``width`` times what that is as a share of the widest bracket).

    The arguments are those of `SuccessiveHalving`. The paper's levels are powers of ``eta``; here they are those of the
    task.
    """

    def shape(self, number: int) -> tuple[int, int]:
        """The brackets in turn, from the one with most levels to the one with the full fidelity alone."""
        most = len(self.levels) - 1
        first = number % (most + 1)
        left = most - first
        share = (most + 1) / (left + 1) * self.eta**left
        if self.width is not None:
            share *= self.width / self.eta**most
        return first, max(1, math.ceil(share - 1e-9))
