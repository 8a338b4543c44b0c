"""Successive halving: many at a low fidelity, the best of them at the next (Jamieson and Talwalkar, 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from search.agents.halving import Bracket, Halving, kept
from search.spaces.base import SearchSpace


class SuccessiveHalving(Halving):
    """Successive halving ("Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016).

    ``width`` random architectures are evaluated at the lowest level; the best ``1 / eta`` of them, at least one, at the
    next, and so on. When a bracket is over the next one begins, until the budget is used up. A level begins when all
    of the level before were told; with several evaluations under way the next bracket begins meanwhile.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        levels: of the fidelity, rising; the last one is that of the task itself.
        eta: of so many on a level one goes on to the next (3 in Hyperband's paper).
        fidelity: what the levels are of: one of what the task honours.
        inherit: go on from what the evaluation one level below has left, where the task honours ``parent``, instead of
            starting again.
        tries: random architectures drawn in search of one that the trial has not asked for (assumed).
        width: of a bracket; None for as many as leave one on the last level. No bracket is wider than lets it come to
            its end within the budget.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        levels: Sequence[float] = (1, 3, 9),
        eta: float = 3.0,
        fidelity: str = "epochs",
        inherit: bool = True,
        tries: int = 4,
        width: int | None = None,
    ):
        super().__init__(space, trials, seed, levels, eta, fidelity, inherit, tries)
        if width is not None and width < 1:
            raise ValueError(f"{type(self).__name__}: width is {width}, at least 1 or null is needed")
        self.width = width

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Brackets of a few evaluations."""
        return {"eta": 2.0}

    def shape(self, number: int) -> tuple[int, int]:
        """The first level and the width of a trial's bracket, by its number from 0."""
        return 0, self.width or math.ceil(self.eta ** (len(self.levels) - 1))

    def choose(self, trial: int) -> tuple[Bracket, int]:
        """The first bracket that has something to ask for, or a new one."""
        brackets = self._brackets[trial] = [each for each in self._brackets[trial] if not self._over(each)]
        for bracket in brackets:
            if (place := self._place_in(bracket)) is not None:
                return bracket, place
        first, width = self.shape(self._begun[trial])
        while self.budget and width > 1 and self.length(first, width) > self.budget:
            width -= 1
        self._begun[trial] += 1
        brackets.append(Bracket(first, width))
        return brackets[-1], 0

    def length(self, first: int, width: int) -> int:
        """Evaluations in a bracket."""
        return sum(kept(width, self.eta, k) for k in range(len(self.levels) - first))

    def _place_in(self, bracket: Bracket) -> int | None:
        """The rung that something is asked for on; None while the last one is waited for, and at the end."""
        last = len(bracket.rungs) - 1
        if last < 0 or (last == 0 and len(bracket.rungs[0]) < bracket.width):
            return 0
        if last and len(bracket.rungs[last]) < self._size(bracket, last):
            return last
        told = all(entry.values is not None for entry in bracket.rungs[last])
        more = bracket.first + last + 1 < len(self.levels) and any(not entry.failed for entry in bracket.rungs[last])
        return last + 1 if told and more else None

    def _size(self, bracket: Bracket, place: int) -> int:
        """How many a rung takes: no more than the rung below has successes."""
        most = sum(not entry.failed for entry in bracket.rungs[place - 1])
        return min(most, kept(bracket.width, self.eta, place))

    def _over(self, bracket: Bracket) -> bool:
        waiting = any(entry.values is None for rung in bracket.rungs for entry in rung)
        return not waiting and self._place_in(bracket) is None
