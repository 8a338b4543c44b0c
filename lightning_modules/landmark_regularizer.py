"""Landmark regularisation: a supernet's losses must rank a few architectures as stand-alone training does.

Yu, Ranftl and Salzmann, "Landmark Regularization: Ranking Guided Super-Net Training in Neural Architecture Search",
CVPR 2021. The regulariser needs the landmarks and a way to run one of them on a batch, and nothing of how paths are
sampled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_modules.pair_penalties import PENALTIES
from lightning_modules.supernet_settings import SupernetSettings

Schedule = Literal[
    "constant", "cosine_increase", "cosine_decrease", "step_increase", "step_decrease", "inverse_learning_rate"
]

_STEPS = {"step_decrease": (1.0, 0.1, 0.01, 0.001), "step_increase": (0.0, 0.01, 0.1, 1.0)}
"""Share of lambda in each quarter (public code)."""
_RAMP = 10 / 250
"""Share of the regularised epochs over which a constant or decreasing coefficient rises to its start: the public code's
10 of the 250 that its longest schedule has. As a number of epochs it would leave nothing of a short schedule."""


_MOMENTS = 1000
"""Of which a mean coefficient is the mean."""


@dataclass(frozen=True)
class LandmarkSettings:
    """How landmarks weigh on a training.

    Attributes:
        coefficient: lambda, the largest weight of the regulariser (10).
        schedule: how the weight goes, step by step, from the end of the warm-up to the end of training (eq. 7:
            ``cosine_increase``). ``inverse_learning_rate`` is lambda times what the learning rate ends at plus by how
            much it has fallen (public code): with rates from 0.025 to 0.001, from 0.001 to 0.025 of lambda.
        warmup: epochs without the regulariser.
        published_end: what an increasing cosine is a fraction of. False, as in the paper, ends at lambda; True, as in
            the public code, divides the epochs after the warm-up by all epochs, so it ends below: at 6.91 of 10 for 400
            epochs with 150 of warm-up.
        pairs: random pairs a step, m of eq. 6; 0 takes all pairs, eq. 4. The penalty is their mean, so that lambda
            weighs as much however many they are.
        pairing: ``uniform`` over all pairs, or as in the public code, ``published``: the worse landmark first, uniform
            over all but the best, then one better than it, which favours pairs of good landmarks.
        group: landmarks drawn a step of which all pairs count, in place of ``pairs``: four landmarks cost what two
            pairs do and have six. 0 for pairs.
        penalty: a name in `lightning_modules.pair_penalties`.
        truths: how penalties see what landmarks are worth. ``range``: from 0 to 1, as in the public code.
            ``quantiles``: as normal quantiles of the ranks among the landmarks, so that a few that hardly learn don't
            take up all of the range.
        spread: what the truths are multiplied by: the difference of losses that a penalty such as ``squared`` asks of
            truths that differ by 1.
        weigh_by_worth: multiply each penalty by the difference of the two landmarks' truths ("embed" in the public
            code, where they lie in [0, 1]).
        triples: draw three landmarks a time and compare the first two and the last two of them, until there are as many
            pairs as wanted or one more.
        batch_share: share of a held-out batch's images that landmarks run on. The paper's is 1.
        every: steps between two regularised ones; the coefficient is multiplied by it, so its mean stays.
    """

    coefficient: float = 10.0
    schedule: Schedule = "cosine_increase"
    warmup: int = 150
    published_end: bool = False
    pairs: int = 1
    pairing: Literal["uniform", "published"] = "uniform"
    group: int = 0
    penalty: str = "hinge"
    truths: Literal["range", "quantiles"] = "range"
    spread: float = 1.0
    weigh_by_worth: bool = False
    triples: bool = False
    batch_share: float = 1.0
    every: int = 1

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"warmup": 1}

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if self.penalty not in PENALTIES:
            raise ValueError(f"penalty is '{self.penalty}', allowed: {', '.join(PENALTIES)}")
        if not 0 < self.batch_share <= 1:
            raise ValueError(f"batch_share is {self.batch_share}, it must be above 0 and at most 1")
        if self.truths not in ("range", "quantiles"):
            raise ValueError(f"truths is '{self.truths}', allowed: range, quantiles")
        if self.group == 1 or self.group < 0 or (self.group and self.triples):
            raise ValueError(f"group is {self.group}, it must be 0 or at least 2, and triples are another way to draw")
        if self.spread <= 0:
            raise ValueError(f"spread is {self.spread}, it must be above 0")
        if self.every < 1 or self.pairs < 0 or self.warmup < 0 or self.coefficient < 0:
            raise ValueError(
                f"every is {self.every} (at least 1), pairs {self.pairs}, warmup {self.warmup} and coefficient "
                f"{self.coefficient} (at least 0)"
            )

    def coefficient_at(self, moment: float, training: SupernetSettings) -> float:
        """Lambda at a moment of a training (eq. 7).

        Args:
            moment: epochs passed, fractions included.
            training: of which it is a moment.
        """
        passed, left = moment - self.warmup, max(1, training.epochs - self.warmup)
        if passed < 0:
            return 0.0
        ramp = 1.0 if self.schedule.endswith("increase") else min(1.0, passed / (_RAMP * left))
        if self.schedule == "constant":
            share = 1.0
        elif self.schedule == "cosine_increase":
            share = 0.5 * (1 - math.cos(math.pi * passed / (training.epochs if self.published_end else left)))
        elif self.schedule == "cosine_decrease":
            share = 0.5 * (1 + math.cos(math.pi * passed / left))
        elif self.schedule == "inverse_learning_rate":
            now = training.learning_rate_at(math.floor(moment))
            share = training.learning_rate - now + training.final_learning_rate
        else:
            share = _STEPS[self.schedule][min(3, int(4 * passed / left))]
        return self.coefficient * ramp * share

    def mean_coefficient(self, training: SupernetSettings) -> float:
        """Lambda on average over the epochs behind the warm-up: schedules compare like with like where these agree."""
        left = max(0, training.epochs - self.warmup)
        moments = [self.warmup + (k + 0.5) * left / _MOMENTS for k in range(_MOMENTS)]
        return sum(self.coefficient_at(moment, training) for moment in moments) / _MOMENTS if left else 0.0


class LandmarkRegularizer:
    """The ranking loss on landmarks.

    Args:
        landmarks: architectures.
        worth: of each, by stand-alone training: higher is better. Or several opinions of each, on one scale, such as
            zero-cost proxies have: then pairs count that all of them order alike, and worth is their mean.
        settings: how it weighs on the training.

    Raises:
        ValueError: fewer than two landmarks of different worth, or another number of worths.
    """

    def __init__(
        self,
        landmarks: Sequence[Sequence[int]],
        worth: Sequence[float | Sequence[float]],
        settings: LandmarkSettings = LandmarkSettings(),
    ):
        if len(landmarks) != len(worth):
            raise ValueError(f"{len(landmarks)} landmarks and {len(worth)} numbers of what they are worth")
        opinions = np.array([np.atleast_1d(each) for each in worth], dtype=np.float64)
        means = opinions.mean(1)
        if not np.isfinite(opinions).all() or len(np.unique(means)) < 2:
            raise ValueError("landmarks: at least two of different, known worth are needed")
        if settings.triples and len(worth) < 3:
            raise ValueError("landmarks: triples need at least three of them")
        order = np.argsort(means, kind="stable")
        self.landmarks = [tuple(landmarks[k]) for k in order]
        self.worth = means[order].tolist()
        self.settings = settings
        self._better: np.ndarray = np.all(opinions[order, None] > opinions[None, order], axis=-1)
        """Whether the first of two is better, by all opinions."""
        usable = self._better.copy()
        usable[-1, 0] &= not settings.triples  # the best and the worst are never neighbours in a triple
        if not usable.any():
            raise ValueError("landmarks: opinions agree on no pair of them")
        if settings.group > len(worth):
            raise ValueError(f"landmarks: a group of {settings.group} was asked for, of {len(worth)} landmarks")
        self._truths = settings.spread * torch.tensor(_truths(np.array(self.worth), settings.truths))

    def pairs(self, seed: int, step: int) -> list[tuple[int, int]]:
        """The pairs of a step, each (better, worse) as places in `landmarks`, a pure function of the arguments.

        Landmarks of equal worth are no pair, nor are those on which opinions differ.
        """
        count, settings = len(self.landmarks), self.settings
        if settings.pairs == 0 and not settings.group:
            return self._pairs_among(range(count))
        generator = np.random.default_rng(np.random.SeedSequence((seed, step, 0x1A4D)))
        drawn: list[tuple[int, int]] = []
        if settings.group:
            while not drawn:  # of some groups no pair counts
                drawn = self._pairs_among(sorted(generator.choice(count, settings.group, replace=False).tolist()))
            return drawn
        while len(drawn) < settings.pairs:
            if settings.triples:
                low, middle, high = sorted(generator.choice(count, 3, replace=False).tolist())
                several = [(middle, low), (high, middle)]
            elif settings.pairing == "published":
                worse = int(generator.integers(count - 1))
                several = [(int(generator.integers(worse + 1, count)), worse)]
            else:
                worse, better = sorted(generator.choice(count, 2, replace=False).tolist())
                several = [(better, worse)]
            drawn += [pair for pair in several if self._better[pair]]
        return drawn

    def _pairs_among(self, places: Sequence[int]) -> list[tuple[int, int]]:
        """All pairs of some landmarks that count, by their places in ascending order."""
        return [(b, w) for w, b in itertools.combinations(places, 2) if self._better[b, w]]

    def active(self, step: int, moment: float, training: SupernetSettings) -> float:
        """The weight of the regulariser at a step; 0 where it is not to be computed. Arguments as of the settings."""
        if step % self.settings.every:
            return 0.0
        return self.settings.every * self.settings.coefficient_at(moment, training)

    def penalty(self, pairs: Sequence[tuple[int, int]], loss_of: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """The mean penalty over pairs (eq. 6, over m): a scalar; a landmark in several pairs runs once.

        Args:
            pairs: of `pairs`.
            loss_of: the supernet's loss of an architecture on the batch at hand.
        """
        losses = {place: loss_of(self.landmarks[place]) for place in dict.fromkeys(p for pair in pairs for p in pair)}
        total: Tensor | None = None
        for better, worse in pairs:
            better_worth, worse_worth = self._truths[better], self._truths[worse]
            each = PENALTIES[self.settings.penalty](losses[better], losses[worse], better_worth, worse_worth)
            if self.settings.weigh_by_worth:
                each = each * float(better_worth - worse_worth)
            total = each if total is None else total + each
        assert total is not None
        return total / len(pairs)


def _truths(worth: np.ndarray, scale: str) -> list[float]:
    """What landmarks are worth, as penalties see it; the arguments are in ascending order, and not all the same."""
    if scale == "range":
        found = (worth - worth[0]) / (worth[-1] - worth[0])
    else:
        from scipy.special import ndtri
        from scipy.stats import rankdata

        found = ndtri((rankdata(worth) - 0.5) / len(worth))
    return list(map(float, found))
