"""Adaptive transfer to a device: a few networks timed on it give the prior mean, and the target's rewards correct it.

For whoever can time networks on the device and evaluates others there too: a search need not choose between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from search.agents.adaptive_transfer import AdaptiveTransfer
from search.agents.latency_transfer import LatencyTransfer
from search.spaces.base import SearchSpace


class AdaptiveLatencyTransfer(LatencyTransfer, AdaptiveTransfer):
    """`LatencyTransfer` says what to expect of a target, `AdaptiveTransfer` listens to what it gives.

    The prior mean of an architecture is the normal quantile of its place in the order of `LatencyTransfer`'s predicted
    reward, ``quality x latency^exponent``; on a target without a device, of the predicted quality. Everything after the
    prior is `AdaptiveTransfer`'s. Source tasks should reward quality alone.

    The place is among the whole space, of which a search sees the top alone. Within that its normalised rewards have
    variance 1, so level and slope of the prior are hardly known there, as `AdaptiveTransfer`'s kernel has it.

    Args:
        space: what can be asked; a space of the latency table where the target has a device.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        trees: of each forest. scikit-learn's default.
        exponent: w of the target's reward, at most 0.
        samples: networks that are timed.
        held_out: devices of the table whose latencies may not be used, beside the target's.
        latency_table: where networks are timed and the other devices' latencies are read (format:
            `search.tables.latency`).
        device: the target's; a study fills in that of its task.
        refit: evaluations between two fits of the kernel.
        steps: of Adam in each fit, which starts anew.
        confidence: standard deviations above the mean, of the confidence bound.
        candidates: a larger space is not looked at as a whole, but so many of its architectures, drawn for each choice.
        adapts_on: as for `AdaptiveTransfer`, ``ranks`` or ``rewards``.

    Raises:
        FileNotFoundError: there is a device, but not the table.
        ValueError: the table lacks a device, or a number is out of range.
    """

    caches = LatencyTransfer.caches | AdaptiveTransfer.caches

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        trees: int = 100,
        exponent: float = -0.07,
        samples: int = 10,
        held_out: Sequence[str] = (),
        latency_table: str = "nasbench201_latency.npz",
        device: str = "",
        refit: int = 5,
        steps: int = 30,
        confidence: float = 1.0,
        candidates: int = 50_000,
        adapts_on: Literal["ranks", "rewards"] = "ranks",
    ):
        # Not by way of LatencyTransfer's constructor, which could not hand on what is AdaptiveTransfer's.
        AdaptiveTransfer.__init__(
            self, space, trials, seed, trees, refit, steps, confidence, candidates, adapts_on=adapts_on
        )
        self._know_device(exponent, samples, held_out, latency_table, device)
