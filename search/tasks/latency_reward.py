"""A task whose reward weighs a looked-up quality by a looked-up latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from search.evaluation import Evaluation, Objective, Proposal, read_objectives
from search.rewards.latency import below_zero, check_exponent, latency_reward
from search.spaces.base import SearchSpace
from search.tables.latency import LatencyTable, read_latency
from search.tasks.base import Task, keeps_limits
from search.tasks.table import TableTask
from search.tasks.table_pool import TableColumn


class LatencyRewardTask(Task):
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

    instant = True
    objectives: Mapping[str, Objective] = MappingProxyType(
        {"quality": Objective("max"), "latency_ms": Objective("min")}
    )

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
        self.objectives = {**self.objectives, **read_objectives(objectives or {})}
        for name in self.objectives:
            if name not in ("quality", "latency_ms", "score"):
                raise ValueError(f"objectives has '{name}', allowed: quality, latency_ms, score")
        column = TableColumn(**quality) if isinstance(quality, dict) else quality
        self._set_up(
            TableTask(space, **asdict(column)), read_latency(latency_table, space), device, exponent, target_quantile
        )

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
        latencies: LatencyTable,
        device: str,
        exponent: float,
        target_quantile: float,
        offer: Callable[[int], Tensor] | None = None,
    ) -> None:
        check_exponent(exponent)
        if not 0 <= target_quantile <= 1:
            raise ValueError(f"target_quantile is {target_quantile}, it must lie in [0, 1]")
        self.space, self.quality, self.device, self.exponent = quality.space, quality, device, exponent
        self._archs, self._latency, self._offer = latencies.archs, latencies.of(device), offer
        self.target = float(self._latency.nanquantile(target_quantile))
        # All at once: a vectorised power rounds by the place in its batch, and a resumed run has other batches.
        scores = quality.scores(self._archs)
        if (scores < 0).any():
            cure = "choose a metric that is never negative"
            raise ValueError(below_zero(quality.score_name, scores[scores < 0].min().item(), cure))
        self._rewards = latency_reward(scores, self._latency, self.target, exponent)
        if (self._rewards.isinf() & scores.isfinite()).any():
            raise ValueError(f"exponent is {exponent}: the reward of a fast network would be infinite")
        self.score_name = f"{quality.score_name} x ({device} latency / {self.target:.3g} ms)^{exponent:g}"

    def parts(self) -> dict[str, Task]:
        """The look-up of the quality."""
        return {"quality": self.quality}

    def evaluate(self, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
        """The tables' values, looked up together; seeds change nothing."""
        if not proposals:
            return
        architectures = [proposal.architecture for proposal in proposals]
        archs = torch.tensor(architectures, dtype=torch.long)
        codes = self.space.code(archs)
        quality, latency, reward = self.quality.scores(archs), self._latency[codes], self._rewards[codes]
        values = zip(architectures, quality.tolist(), latency.tolist(), reward.tolist(), strict=True)
        for architecture, q, milliseconds, score in values:
            if math.isnan(score):
                missing = self.quality.column if math.isnan(q) else f"{self.device} latency"
                reason = f"no {missing} was measured of {self.space.format(architecture)}"
                yield Evaluation.failed(reason, self.quality.cost_seconds)
            else:
                yield Evaluation(score, {"quality": q, "latency_ms": milliseconds}, self.quality.cost_seconds)

    def all_scores(self) -> Tensor:
        """The reward of every architecture, float64 ``[size]``.

        NaN where quality or latency was not measured, or misses a hard limit.
        """
        quality = self.quality.scores(self._archs)
        values = {"quality": quality, "latency_ms": self._latency, "score": self._rewards}
        return torch.where(keeps_limits(self.objectives, values), self._rewards, math.nan)

    def all_objectives(self) -> Tensor:
        """Quality and latency of every architecture, float64 ``[size, 2]``; NaN where it was not measured."""
        return torch.stack([self.quality.scores(self._archs), self._latency], dim=1)

    def offered(self, seed: int) -> Tensor | None:
        """What the pool that made this task has evaluated already; None for a task of its own."""
        return None if self._offer is None else self._offer(seed)
