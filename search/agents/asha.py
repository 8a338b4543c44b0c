"""Asynchronous successive halving: promotes as soon as it can, and waits for nobody (Li et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.agents.halving import Bracket, Entry, Halving, Rung
from search.spaces.base import SearchSpace


class ASHA(Halving):
    """ASHA ("A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2).

    Whenever something is asked for, the levels are looked through from the top: where one of the best ``1 / eta`` of
    what was told on a level has not gone up yet, it goes; where there is none, a new random architecture begins at the
    bottom. So nothing is waited for, at the price of some that go up too early.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        levels: of the fidelity, rising; the last one is that of the task itself.
        eta: of so many on a level one goes on to the next (4 in the paper's experiments).
        fidelity: what the levels are of: one of what the task honours.
        inherit: go on from what the evaluation one level below has left, where the task honours ``parent``, instead of
            starting again.
        tries: random architectures drawn in search of one that the trial has not asked for (assumed).

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        levels: Sequence[float] = (1, 3, 9),
        eta: float = 4.0,
        fidelity: str = "epochs",
        inherit: bool = True,
        tries: int = 4,
    ):
        super().__init__(space, trials, seed, levels, eta, fidelity, inherit, tries)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Of three levels the last is reached by the sixth evaluation."""
        return {"eta": 1.5}

    def choose(self, trial: int) -> tuple[Bracket, int]:
        """The highest level that something can go up to, or the bottom."""
        if not self._brackets[trial]:
            self._brackets[trial] = [Bracket(0, 0)]
        (bracket,) = self._brackets[trial]
        for place in reversed(range(min(len(bracket.rungs), len(self.levels) - 1))):
            if self._waiting(bracket.rungs[place]):
                return bracket, place + 1
        return bracket, 0

    def promotable(self, bracket: Bracket, place: int) -> Entry:
        """The best on a rung that has not gone up yet."""
        return self._waiting(bracket.rungs[place])[0]

    def _waiting(self, rung: Rung) -> list[Entry]:
        """Of the best ``1 / eta`` on a rung those that have not gone up, the best first."""
        told = sum(entry.values is not None for entry in rung)
        return [entry for entry in self.best(rung, int(told / self.eta)) if not entry.promoted]

    def best(self, rung: Rung, count: int) -> list[Entry]:
        """The best of what was told on a rung and did not fail, in order, at most so many."""
        return self.ranked(rung)[:count]
