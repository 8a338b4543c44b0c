"""Meta-training tasks that weigh a few paid-for evaluations by many devices' latencies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from search.randomness import TrialRandom, derive_seed
from search.spaces.base import SearchSpace
from search.tables.latency import read_latency
from search.tasks.base import TaskPool
from search.tasks.latency_reward import LatencyRewardTask
from search.tasks.table import TableTask
from search.tasks.table_pool import TableColumn


class DeviceRewardPool(TaskPool):
    """Rewards ``quality x (latency / target)^exponent``, a source column and a source device for each task.

    Training a network is what costs; to weigh its quality by another device's latency costs nothing. So each
    meta-trained agent has a fixed random sample of networks for each column, its tasks offer only these, and however
    many tasks there are, its source evaluations are at most ``evaluations``.

    Every device comes up once before any comes again, in random order, with the columns in turn, and the exponents
    where there are several; after as many rounds as there are of both together, every combination has come up once.

    Args:
        space: of all tables.
        quality: the columns to draw from; dicts of the same keys do as well.
        latency_table: the latencies' path (format: `search.tables.latency`).
        held_out: devices that are never drawn.
        exponent: w of the reward, at most 0; several, for tasks that differ in what speed is worth as well.
        target_quantile: the target latency is this quantile of a device's latencies.
        evaluations: source evaluations of one agent, shared evenly by the columns.

    Raises:
        FileNotFoundError: a table is not there.
        ValueError: a column or device does not exist, none is left to draw from, a column has a value below 0, less
            than half was measured on a device, or a number is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        quality: Sequence[TableColumn],
        latency_table: str,
        held_out: Sequence[str],
        exponent: float | Sequence[float],
        target_quantile: float = 0.3,
        evaluations: int = 500,
    ):
        columns = [TableColumn(**each) if isinstance(each, dict) else each for each in quality]
        if not columns:
            raise ValueError("DeviceRewardPool: 'quality' is empty, at least one table column is needed")
        self.exponents = tuple(exponent) if isinstance(exponent, Sequence) else (exponent,)
        if not self.exponents:
            raise ValueError("DeviceRewardPool: 'exponent' is empty, at least one is needed")
        self.space, self.target_quantile = space, target_quantile
        self.columns = [TableTask(space, **asdict(column)) for column in columns]
        self.latencies = read_latency(latency_table, space)
        for device in held_out:
            self.latencies.check_device(device)
        self.devices = tuple(device for device in self.latencies.devices if device not in held_out)
        if not self.devices:
            raise ValueError("DeviceRewardPool: every device is held out, none is left to meta-train on")
        # A network whose latency is missing somewhere would make a failed evaluation out of one that was paid for.
        measured = ~torch.stack([self.latencies.of(device) for device in self.devices], dim=1).isnan()
        self._networks_of = []
        for column in self.columns:
            scores = column.all_scores()
            if scores is None:
                raise ValueError(f"DeviceRewardPool: the column '{column.column}' lacks architectures of the space")
            self._networks_of.append(self.latencies.archs[measured.all(1) & ~scores.isnan()])
        self.evaluations_per_column = evaluations // len(columns)
        most = min(len(archs) for archs in self._networks_of)
        if not 1 <= self.evaluations_per_column <= most:
            raise ValueError(
                f"DeviceRewardPool: evaluations is {evaluations}, {len(columns)} to {len(columns) * most} are possible"
            )
        # Refuses what no task can be made of before anything has been searched.
        for place, device, w in itertools.product(range(len(self.columns)), self.devices, self.exponents):
            self._open(place, device, w, 0)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Columns of tables that ship, for `NASBench201`."""
        return {
            "quality": [
                {"table": "nasbench201.npz", "dataset": "cifar100", "split": "val", "metric": "acc", "epochs": 12}
            ],
            "latency_table": "nasbench201_latency.npz",
            "held_out": ["pixel3"],
            "exponent": -0.07,
            "evaluations": 50,
        }

    def draw(self, index: int, seed: int) -> LatencyRewardTask:
        """The ``index``-th task: a pure function of (index, seed)."""
        return self._open(*self._drawn(index, seed), index)

    def describe(self, index: int, seed: int) -> str:
        """For instance ``cifar100_val_acc_12ep on titanx_32``, and the exponent where there are several."""
        column, device, exponent = self._drawn(index, seed)
        weighed = f", w = {exponent:g}" if len(self.exponents) > 1 else ""
        return f"{self.columns[column].column} on {device}{weighed}"

    def source(self, index: int, seed: int) -> str:
        """The column: tasks that differ in the device or the exponent only share their evaluations."""
        column, *_ = self._drawn(index, seed)
        return f"{column}: {self.columns[column].column}"

    def sample(self, column: int, seed: int) -> Tensor:
        """The networks that one agent has evaluated on a column.

        Args:
            column: its place in ``quality``.
            seed: the seed of the agent's trial.

        Returns:
            Int64 ``[evaluations // columns, decisions]``, no network twice.
        """
        archs = self._networks_of[column]
        order = TrialRandom(derive_seed(seed, "paid for", column)).permutation(len(archs))[0]
        return archs[order[: self.evaluations_per_column]]

    def _open(self, column: int, device: str, exponent: float, index: int) -> LatencyRewardTask:
        def offer(seed: int) -> Tensor:
            """The sample in an order of this task's own: a task shorter than the sample sees another part of it."""
            networks = self.sample(column, seed)
            return networks[TrialRandom(derive_seed(seed, "order", index)).permutation(len(networks))[0]]

        return LatencyRewardTask.of(self.columns[column], self.latencies, device, exponent, self.target_quantile, offer)

    def _drawn(self, index: int, seed: int) -> tuple[int, str, float]:
        turn, place = divmod(index, len(self.devices))
        order = TrialRandom(derive_seed(seed, "device pool", turn)).permutation(len(self.devices))[0]
        device = int(order[place])
        # By the device, not the place: over as many turns as there are columns, each pair comes up exactly once.
        rounds, column = divmod(device + turn, len(self.columns))
        return column, self.devices[device], self.exponents[rounds % len(self.exponents)]
