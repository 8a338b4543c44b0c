"""Rewards that put what misses a hard limit below everything that keeps them all (Deb, 2000)."""

from __future__ import annotations

import bisect
import math

from search.evaluation import Evaluation


class FeasibleFirst:
    """One number for each evaluation of a search, for agents that climb one.

    An evaluation that keeps every limit is worth its score. One that misses some is worth less than every feasible one
    of its trial, and among those the less, the further it misses them. What was told stays told: where a later
    evaluation would contradict an earlier reward, it is given one between its neighbours in that order, so the order
    holds over a whole trial. A pure function of a trial's evaluations in order of telling.
    """

    def __init__(self) -> None:
        self._ladders: dict[int, _Ladder] = {}

    def reward(self, trial: int, evaluation: Evaluation) -> float:
        """What to tell of an evaluation; to be asked of every one, in order and once. NaN of one that failed."""
        if evaluation.status != "ok":
            return math.nan
        return self._ladders.setdefault(trial, _Ladder()).place(evaluation)


class _Ladder:
    """The rewards of one trial, lowest first."""

    def __init__(self) -> None:
        self._keys: list[tuple[bool, float]] = []
        self._rewards: list[float] = []
        self._lowest, self._highest = math.inf, -math.inf  # scores, feasible or not

    def place(self, evaluation: Evaluation) -> float:
        """The reward of one more evaluation."""
        score, missed = evaluation.score, evaluation.violation
        self._lowest, self._highest = min(self._lowest, score), max(self._highest, score)
        key = (True, score) if evaluation.feasible else (False, -missed)
        rung = bisect.bisect_left(self._keys, key)
        if rung < len(self._keys) and self._keys[rung] == key:
            return self._rewards[rung]
        below = self._rewards[rung - 1] if rung else -math.inf
        above = self._rewards[rung] if rung < len(self._rewards) else math.inf
        largest = max(abs(self._lowest), abs(self._highest))
        spread = max(self._highest - self._lowest, 1e-3 * largest) or 1.0
        # One to two spreads below the lowest score: far enough to be avoided, near enough not to blind to the others.
        reward = score if evaluation.feasible else self._lowest - spread * (1 + missed / (1 + missed))
        if not below < reward < above:
            if math.isinf(above):
                reward = below + spread
            elif math.isinf(below):
                reward = above - spread
            else:
                reward = below + (above - below) / 2
        self._keys.insert(rung, key)
        self._rewards.insert(rung, reward)
        return reward
