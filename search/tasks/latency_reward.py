"""A task whose reward weighs a looked-up quality by a looked-up latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from search.rewards.latency import TableLatency
from search.spaces.base import SearchSpace
from search.tables.latency import LatencyTable
from search.tasks.reward import RewardTask, below_zero
from search.tasks.table import TableTask
from search.tasks.table_pool import TableColumn


class LatencyRewardTask(RewardTask):
    """The reward ``quality x (latency / target)^exponent`` of one table column on one device (CATCH, sec. 4.3.1).

    The metrics of an evaluation are ``quality`` and ``latency_ms``. An architecture whose quality or latency was not
    measured is a failed evaluation.

    Args:
        space: of both tables.
        quality: the column with the quality; a dict of the same keys does as well.
        latency_table: the latencies' path (format: `search.tables.latency`).
        device: one of the latency table's.
        exponent: w, at most 0.
        target_quantile: the target latency is this quantile of the device's latencies over the whole space.
        objectives: hard limits, for instance ``{latency_ms: {direction: min, limit: 5.0}}``; of ``quality``,
            ``latency_ms`` and ``score``, the reward.

    Raises:
        FileNotFoundError: a table is not there.
        ValueError: there is no such column or device (the nearest spelling is named), the column has a value below 0,
            less than half was measured on the device, or a number is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        quality: TableColumn,
        latency_table: str,
        device: str,
        exponent: float,
        target_quantile: float = 0.3,
        objectives: dict[str, Any] | None = None,
    ):
        for name in objectives or {}:
            if name not in ("quality", "latency_ms", "score"):
                raise ValueError(f"objectives has '{name}', allowed: quality, latency_ms, score")
        column = TableColumn(**quality) if isinstance(quality, dict) else quality
        task = TableTask(space, **asdict(column))
        self._set_up(task, latency_table, device, exponent, target_quantile, None, objectives)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Columns of tables that ship, for `NASBench201`."""
        return {
            "quality": {
                "table": "nasbench201.npz",
                "dataset": "cifar100",
                "split": "val",
                "metric": "acc",
                "epochs": 12,
            },
            "latency_table": "nasbench201_latency.npz",
            "device": "pixel3",
            "exponent": -0.07,
        }

    @classmethod
    def of(
        cls,
        quality: TableTask,
        latencies: LatencyTable,
        device: str,
        exponent: float,
        target_quantile: float = 0.3,
        offer: Callable[[int], Tensor] | None = None,
    ) -> LatencyRewardTask:
        """The task of tables that are open already.

        Args:
            quality: the look-up of the quality.
            latencies: of the same space.
            device: as in the constructor.
            exponent: as in the constructor.
            target_quantile: as in the constructor.
            offer: what `offered` answers.
        """
        task = cls.__new__(cls)
        task._set_up(quality, latencies, device, exponent, target_quantile, offer)
        return task

    def _set_up(
        self,
        quality: TableTask,
        latencies: str | LatencyTable,
        device: str,
        exponent: float,
        target_quantile: float,
        offer: Callable[[int], Tensor] | None = None,
        objectives: Mapping[str, Any] | None = None,
    ) -> None:
        term = TableLatency(quality, latencies, device, exponent, None, target_quantile)
        self._compose(quality, [term], objectives=objectives)
        self.device = device
        self.target, self._archs, self._offer = term.target, term.archs, offer
        self._quality = quality.scores(term.archs)
        if (self._quality < 0).any():
            cure = "choose a metric that is never negative"
            raise ValueError(below_zero(quality.score_name, self._quality[self._quality < 0].min().item(), cure))
        rewards = self._combined(self._quality, [term.values(term.archs).values])
        if (rewards.isinf() & self._quality.isfinite()).any():
            raise ValueError(f"exponent is {exponent}: the reward of a fast network would be infinite")

    def all_scores(self) -> Tensor:
        """The reward of every architecture, float64 ``[size]``, as `RewardTask.all_scores` has it."""
        return self._rewards(self._quality, self._archs)

    def all_objectives(self) -> Tensor:
        """Quality and latency of every architecture, float64 ``[size, 2]``; NaN where it was not measured."""
        return torch.stack([self._quality, *(term.values(self._archs).measured for term in self.terms)], dim=1)

    def offered(self, seed: int) -> Tensor | None:
        """What the pool that made this task has evaluated already; None for a task of its own."""
        return None if self._offer is None else self._offer(seed)
