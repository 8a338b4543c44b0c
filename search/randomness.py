"""Independent random streams, one a trial, drawn together.

Agents advance many trials at once, and trial ``k`` of seed ``s`` must be the very run that seed ``s + k`` gives alone.
So a number is a pure function of (seed, trial, how many were drawn before): SplitMix64 (Steele, Lea and Flood, 2014)
over a counter, vectorised over trials. The whole state is three integers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = 2**64 - 1


def _mix(words: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 whose every output bit depends on every input bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def derive_seed(*parts: int | str) -> int:
    """One seed in [0, 2^31) out of several numbers and names; the same on every machine.

    Args:
        *parts: what the seed belongs to, for instance ``(recipe seed, "cifar10", evaluation index)``.
    """
    word = 0
    for part in parts:
        values = [part & _MASK] if isinstance(part, int) else list(str(part).encode())
        for value in [*values, 0x100]:  # the terminator keeps ("ab", "c") apart from ("a", "bc")
            # `_mix` on plain integers: a search derives a seed for every evaluation, and arrays of one are slow.
            word = (word + value + 0x9E3779B97F4A7C15) & _MASK
            word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
            word ^= word >> 31
    return word >> 33


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """The index, in proportion to its weight, that a uniform number stands for; never one of weight zero.

    Args:
        weights: ``[..., n]``, non-negative (booleans too), not all zero along the last dimension.
        uniform: float64 ``[...]``, in the open interval (0, 1).

    Returns:
        Int64 ``[...]``.
    """
    cumulative = weights.double().cumsum(-1)
    return (cumulative <= uniform.unsqueeze(-1) * cumulative[..., -1:]).sum(-1)


class TrialRandom:
    """Random numbers for ``trials`` independent trials.

    Every method returns a tensor whose first dimension is the trial.

    Args:
        seed: the seed of trial 0; trial ``k`` is the stream of seed ``seed + k``.
        trials: how many streams advance together.
    """

    def __init__(self, seed: int, trials: int = 1):
        self.seed, self.trials, self._drawn = seed, trials, 0
        seeds = np.array([(seed + trial) & _MASK for trial in range(trials)], dtype=np.uint64)
        self._starts = _mix(_mix(seeds + _GOLDEN))

    def uniform(self, *shape: int) -> Tensor:
        """Float64 ``[trials, *shape]``, uniform in the open interval (0, 1)."""
        count = math.prod(shape)
        counter = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64)
        self._drawn += count
        words = _mix(self._starts[:, None] + counter * _GOLDEN)
        # 52 bits and a half: never 0 or 1, so that logarithms and inverse distribution functions stay finite.
        return torch.from_numpy(((words >> np.uint64(12)) + 0.5) * 2.0**-52).reshape(self.trials, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Float64 ``[trials, *shape]`` from the standard normal distribution."""
        return torch.special.ndtri(self.uniform(*shape))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Int64 ``[trials, *shape]``, uniform in [0, high)."""
        return (self.uniform(*shape) * high).long()

    def categorical(self, weights: Tensor) -> Tensor:
        """One index drawn in proportion to its weight; an index of weight zero is never drawn.

        Args:
            weights: ``[trials, ..., n]``, non-negative (booleans too), not all zero along the last dimension.

        Returns:
            Int64 ``[trials, ...]``.
        """
        return pick(weights, self.uniform(*weights.shape[1:-1]))

    def permutation(self, n: int) -> Tensor:
        """Int64 ``[trials, n]``: a random order of 0 .. n-1 for each trial."""
        return self.uniform(n).argsort(-1)

    def state_dict(self) -> dict[str, int]:
        """The whole state: (seed, trials, drawn)."""
        return {"seed": self.seed, "trials": self.trials, "drawn": self._drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue exactly where ``state`` was taken."""
        self.__init__(state["seed"], state["trials"])  # type: ignore[misc]
        self._drawn = state["drawn"]
