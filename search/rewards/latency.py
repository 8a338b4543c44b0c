"""Latency as a factor of a reward: ``(latency / target)^w`` (MnasNet, sec. 3.1; CATCH, sec. 4.3.1).

The exponent ``w`` is ``alpha`` for a network that is faster than the target and ``beta`` for a slower one. MnasNet's
soft constraint has -0.07 for both: twice the latency costs 5% of the quality. Its hard one has 0 and -1.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional, cast

import torch
from torch import Tensor, nn

from lightning_modules.networks.cost.latency import LatencySettings, Precision, measure_latency
from lightning_modules.networks.cost.operator_latency import OperatorLatencies, operators_of
from search.errors import CatchmarkError, explain
from search.evaluation import Architecture
from search.rewards.base import RewardTerm, Weighed
from search.tables.latency import LatencyTable, read_latency
from search.training.isolation import isolated

if TYPE_CHECKING:
    from search.tasks.base import Task


class LatencyTerm(RewardTerm):
    """A factor by latency, wherever that comes from.

    Args:
        task: whose score is weighed.
        alpha: the exponent up to the target, at most 0.
        beta: the exponent above it, at most 0; None for ``alpha``.

    Raises:
        ValueError: an exponent would make slower networks worth more.
    """

    name, quantity = "latency_ms", "latency"

    def __init__(self, task: Task, alpha: float, beta: float | None = None):
        super().__init__(task)
        self.alpha, self.beta = alpha, alpha if beta is None else beta
        for exponent in (self.alpha, self.beta):
            check_exponent(exponent)

    def target_milliseconds(self) -> float:
        """The latency at which reward and quality are equal."""
        raise NotImplementedError

    def weigh(self, measured: Tensor) -> Tensor:
        """``(latency / target)^w``."""
        return latency_factor(measured, self.target_milliseconds(), self.alpha, self.beta)

    def _power(self) -> str:
        if self.alpha == self.beta:
            return f"{self.alpha:g}"
        return f"({self.alpha:g} below, {self.beta:g} above)"


class TableLatency(LatencyTerm):
    """Latencies of a table of the whole space.

    Args:
        task: whose score is weighed.
        latency_table: the table's path (format: `search.tables.latency`).
        device: one of the table's.
        alpha: see `LatencyTerm`.
        beta: likewise.
        target_quantile: the target latency is this quantile of the device's latencies over the whole space.

    Raises:
        FileNotFoundError: the table is not there.
        ValueError: there is no such device (the nearest spelling is named), less than half was measured on it, or a
            number is out of range.
    """

    instant = True

    def __init__(
        self,
        task: Task,
        latency_table: str | LatencyTable,
        device: str,
        alpha: float = -0.07,
        beta: Optional[float] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        target_quantile: float = 0.3,
    ):
        super().__init__(task, alpha, beta)
        if not 0 <= target_quantile <= 1:
            raise ValueError(f"target_quantile is {target_quantile}, it must lie in [0, 1]")
        table = read_latency(latency_table, task.space) if isinstance(latency_table, str) else latency_table
        self.archs, self._latency, self.quantity = table.archs, table.of(device), f"{device} latency"
        self.target = float(self._latency.nanquantile(target_quantile))
        self._values = self.weigh(self._latency)  # all at once, see `RewardTerm`
        self.described = f"({device} latency / {self.target:.3g} ms)^{self._power()}"

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A device of the table that ships."""
        return {"latency_table": "nasbench201_latency.npz", "device": "pixel3"}

    def target_milliseconds(self) -> float:
        """The quantile."""
        return self.target

    def measure(self, archs: Tensor) -> Tensor:
        """Milliseconds."""
        return self._latency[self.space.code(archs)]

    def values(self, archs: Tensor) -> Weighed:
        """Looked up."""
        codes = self.space.code(archs)
        return Weighed(self._latency[codes], self._values[codes])


class MeasuredLatency(LatencyTerm):
    """Latencies of the networks that a task trains, measured here.

    Without ``lookup`` a latency is measured anew each time, and so is noise: the score of an (architecture, seed) is
    then no longer the same in another run. What a search has recorded stays as it is when it is resumed; what comes
    after differs as much as it would have on a busier day. With ``lookup`` a latency is the sum of the latencies of the
    network's operators. These are measured when they are first met and kept in that file, so a score is a function of
    (architecture, seed) and the file. One run at a time may write a file.

    Args:
        task: builds the networks.
        target_milliseconds: the latency at which reward and quality are equal.
        target: instead, an architecture of the space whose latency is the target. Without ``lookup`` it is measured
            anew when a run is resumed.
        alpha: see `LatencyTerm`.
        beta: likewise.
        resolution: of the images in pixels: one number, or height and width.
        batch: images a pass.
        device: ``cpu``, ``cuda``, or one of several GPUs such as ``cuda:1``; ``auto`` for a GPU where there is one.
        threads: of the CPU for a pass.
        precision: of weights and images.
        channels_last: lay images out pixel by pixel.
        part: what runs. ``network`` is what the space builds, a classifier; ``backbone`` is its feature extractor,
            without the classifier, to which the task's module for detection, segmentation or depth adds heads that are
            the same for every architecture. None: the network where it is trained to classify or has no backbone, else
            the backbone.
        lookup: a JSON file with operators' latencies, made if absent; None to measure every network as a whole.
        warmup: passes before the first that is timed.
        repeats: passes a round.
        rounds: of whose medians the median counts.

    Raises:
        ValueError: a number is out of range, there is not exactly one target, this machine has no such device, or the
            look-up file is of another machine or setting.
    """

    def __init__(
        self,
        task: Task,
        target_milliseconds: Optional[float] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        target: Optional[str] = None,  # noqa: UP045
        alpha: float = -0.07,
        beta: Optional[float] = None,  # noqa: UP045
        resolution: int | list[int] = 224,
        batch: int = 1,
        device: str = "cpu",
        threads: int = 1,
        precision: Precision = "float32",
        channels_last: bool = False,
        part: Optional[Literal["network", "backbone"]] = None,  # noqa: UP045
        lookup: Optional[str] = None,  # noqa: UP045
        warmup: int = 5,
        repeats: int = 11,
        rounds: int = 5,
    ):
        if (target_milliseconds is None) == (target is None):
            raise ValueError("either target_milliseconds or target is needed, and not both")
        if target_milliseconds is not None and not 0 < target_milliseconds < math.inf:
            raise ValueError(f"target_milliseconds is {target_milliseconds}, a number above 0 is needed")
        super().__init__(task, alpha, beta)
        if part not in ("network", "backbone", None):
            raise ValueError(f"part is '{part}', allowed: network, backbone, and null for the one that fits")
        self._builder = cast(Any, task)  # one that trains
        self._measured = part
        self.settings = LatencySettings(
            batch=batch,
            resolution=resolution,
            channels=self._builder.build_arguments()["in_channels"],
            device=("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device,
            threads=threads,
            precision=precision,
            channels_last=channels_last,
            warmup=warmup,
            repeats=repeats,
            rounds=rounds,
        )
        self.settings.check_device()
        self.target = None if target is None else self.space.parse(target)
        self._target_milliseconds = target_milliseconds
        self.lookup = None if lookup is None else Path(lookup)
        self._table = None if self.lookup is None else _table(self.lookup, self.settings)
        base = "target latency" if target_milliseconds is None else f"{target_milliseconds:.3g} ms"
        self.described = f"(latency / {base})^{self._power()}"

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small images, measured once."""
        return {"resolution": 64, "device": "cpu", "warmup": 1, "repeats": 1, "rounds": 1}

    def measure(self, archs: Tensor) -> Tensor:
        """Milliseconds of a pass, one network after another."""
        return torch.tensor([self.latency(tuple(arch)) for arch in archs.tolist()], dtype=torch.float64)

    def latency(self, architecture: Architecture, seed: int = 0) -> float:
        """Milliseconds of a network's pass.

        Args:
            architecture: what to build.
            seed: of its weights, on which no latency depends.
        """
        network = self._part_of(self._builder.build_network(architecture, seed))
        if self._table is None or self.lookup is None:
            return measure_latency(network, self.settings).milliseconds
        operators = operators_of(network, self.settings)
        if self._table.measure(network, operators):
            # Before any score rests on it: a run that dies now finds the same numbers again.
            try:
                self._table.save(self.lookup)
            except OSError as error:
                raise CatchmarkError(f"lookup: {explain(error)}") from error
        return self._table.estimate(network, operators)

    def target_milliseconds(self) -> float:
        """The latency at which reward and quality are equal; that of an architecture is measured at the first call."""
        if self._target_milliseconds is None:
            assert self.target is not None
            self._target_milliseconds = self.latency(self.target)
        return self._target_milliseconds

    def _part_of(self, network: nn.Module) -> nn.Module:
        """What runs."""
        backbone = getattr(network, "backbone", None)
        if self._measured is None:
            self._measured = "network" if backbone is None or self._classifies(network) else "backbone"
        if self._measured == "network":
            return network
        if backbone is None:
            raise CatchmarkError(f"part: networks of the space '{self.space.name}' have no backbone; use 'network'")
        return backbone

    def _classifies(self, network: nn.Module) -> bool:
        """Whether the task trains the network as it is."""
        from lightning_modules.classification import ClassificationModule

        with isolated():
            return isinstance(self._builder.wrap(network), ClassificationModule)


def _table(path: Path, settings: LatencySettings) -> OperatorLatencies:
    """The table in a file, or an empty one that will be written there."""
    if path.exists():
        return OperatorLatencies.load(path, settings)
    if not path.parent.is_dir():
        raise ValueError(f"lookup: there is no folder '{path.parent}' to keep '{path.name}' in")
    return OperatorLatencies(settings)


def latency_factor(latency: Tensor, target: float, alpha: float, beta: float) -> Tensor:
    """``(latency / target)^w`` with w = ``alpha`` up to the target and ``beta`` above (MnasNet, eq. 2 and 3).

    Args:
        latency: any shape, above 0, in the unit of ``target``.
        target: the latency whose factor is 1.
        alpha: at most 0.
        beta: likewise.

    Returns:
        The same shape; NaN where the latency is, unless the exponent is 0.
    """
    ratio = latency / target
    if alpha == beta:
        return ratio**alpha
    return torch.where(ratio > 1, ratio**beta, ratio**alpha)


def check_exponent(exponent: float) -> None:
    """Refuse an exponent that would make slower networks worth more, or all of them nothing or anything."""
    if not -math.inf < exponent <= 0:
        raise ValueError(f"exponent is {exponent}, it must be a number of at most 0: a slower network is worth less")
