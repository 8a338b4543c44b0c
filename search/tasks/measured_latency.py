"""A task whose reward weighs what training gave by how fast the network runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

from lightning_modules.networks.cost.latency import LatencySettings, Precision, measure_latency
from lightning_modules.networks.cost.operator_latency import OperatorLatencies
from search.errors import CatchmarkError, explain
from search.evaluation import Architecture, Evaluation, Objective, Proposal, read_objectives
from search.rewards.latency import below_zero, check_exponent, latency_reward
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne, Task
from search.tasks.trained import TrainedTask, check_measured
from search.training.isolation import isolated


class MeasuredLatencyTask(OneByOne):
    """The reward ``quality x (latency / target)^exponent`` of a trained network (MnasNet, eq. 2; CATCH, sec. 4.3.1).

    Another task trains the network; its score is the quality, which must not be below 0. Then the latency of the same
    network is measured. The metrics are that task's, ``quality`` and ``latency_ms``. Where it fails, so does this one,
    for the same reason; a network that can't be run at the settings of the latency is a failed evaluation too.

    Without ``lookup`` a latency is measured anew each time, and so is noise: the score of an (architecture, seed) is
    then no longer the same in another run. What a search has recorded stays as it is when it is resumed; what comes
    after differs as much as it would have on a busier day. With ``lookup`` a latency is the sum of the latencies of the
    network's operators. These are measured when they are first met and kept in that file, so a score is a function of
    (architecture, seed) and the file. One run at a time may write a file.

    Args:
        space: of both tasks.
        task: trains; it is made with the same space.
        target_milliseconds: the latency at which reward and quality are equal.
        target: instead, an architecture of the space whose latency is the target. Without ``lookup`` it is measured
            anew when a run is resumed.
        exponent: w, at most 0. MnasNet uses -0.07: twice the latency costs 5 % of the quality.
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
        objectives: hard limits, for instance ``{latency_ms: {direction: min, limit: 5.0}}``, of ``quality``,
            ``latency_ms`` and what the task that trains logs; besides those that this task has itself.

    Raises:
        ValueError: a number is out of range, there is not exactly one target, this machine has no such device, or the
            look-up file is of another machine or setting.
    """

    objectives: Mapping[str, Objective] = MappingProxyType(
        {"quality": Objective("max"), "latency_ms": Objective("min")}
    )

    def __init__(
        self,
        space: SearchSpace,
        task: Callable[[SearchSpace], TrainedTask],
        target_milliseconds: float | None = None,
        target: str | None = None,
        exponent: float = -0.07,
        resolution: int | list[int] = 224,
        batch: int = 1,
        device: str = "cpu",
        threads: int = 1,
        precision: Precision = "float32",
        channels_last: bool = False,
        part: Literal["network", "backbone"] | None = None,
        lookup: str | None = None,
        warmup: int = 5,
        repeats: int = 11,
        rounds: int = 5,
        objectives: dict[str, Any] | None = None,
    ):
        if (target_milliseconds is None) == (target is None):
            raise ValueError("either target_milliseconds or target is needed, and not both")
        if target_milliseconds is not None and not 0 < target_milliseconds < math.inf:
            raise ValueError(f"target_milliseconds is {target_milliseconds}, a number above 0 is needed")
        check_exponent(exponent)
        if part not in ("network", "backbone", None):
            raise ValueError(f"part is '{part}', allowed: network, backbone, and null for the one that fits")
        self.space, self.task, self.exponent, self._measured = space, task(space), exponent, part
        # A score under which training may stop is one of the reward, which nobody knows before the latency.
        self.honours = self.task.honours - {"stop_below"}
        self.keeps_artifact = self.task.keeps_artifact
        inner = {
            "quality" if name == self.task.score_metric else name: each for name, each in self.task.objectives.items()
        }
        self.objectives = {**self.objectives, **inner, **read_objectives(objectives or {})}
        self.settings = LatencySettings(
            batch=batch,
            resolution=resolution,
            channels=self.task.build_arguments()["in_channels"],
            device=("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device,
            threads=threads,
            precision=precision,
            channels_last=channels_last,
            warmup=warmup,
            repeats=repeats,
            rounds=rounds,
        )
        self.settings.check_device()
        self.target = None if target is None else space.parse(target)
        self._target_milliseconds = target_milliseconds
        self.lookup = None if lookup is None else Path(lookup)
        self._table = None if self.lookup is None else _table(self.lookup, self.settings)
        base = "target latency" if target_milliseconds is None else f"{target_milliseconds:.3g} ms"
        self.score_name = f"{self.task.score_name} x (latency / {base})^{exponent:g}"

    def parts(self) -> dict[str, Task]:
        """The task that trains."""
        return {"task": self.task}

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small images, measured once."""
        return {
            "task": {"class_path": "TrainedTask", "init_args": TrainedTask.toy()},
            "resolution": 64,
            "device": "cpu",
            "warmup": 1,
            "repeats": 1,
            "rounds": 1,
        }

    def evaluate_one(self, proposal: Proposal) -> Evaluation:
        """Train the network, then measure its latency.

        Args:
            proposal: as for the task that trains.

        Raises:
            CatchmarkError: the quality is below 0.
        """
        trained = self.task.evaluate_one(proposal)
        if trained.status != "ok":
            return trained
        if trained.score < 0:
            cure = "let 'score' of the task that trains name a metric that is never negative"
            raise CatchmarkError(below_zero(self.task.score_name, trained.score, cure))
        began = time.monotonic()
        try:
            milliseconds = self.latency(proposal.architecture, proposal.seed)
            target = self.target_milliseconds()
        except CatchmarkError:
            raise
        except Exception as error:
            seconds = trained.cost_seconds + time.monotonic() - began
            return Evaluation.failed(f"no latency: {explain(error)}", seconds, trained.history)
        quality, latency = torch.tensor([trained.score, milliseconds], dtype=torch.float64)
        metrics = trained.metrics | {"quality": trained.score, "latency_ms": milliseconds}
        check_measured(self.objectives, [*metrics, self.score_metric])
        return Evaluation(
            latency_reward(quality, latency, target, self.exponent).item(),
            metrics,
            trained.cost_seconds + time.monotonic() - began,
            history=trained.history,
            artifact=trained.artifact,
        )

    def latency(self, architecture: Architecture, seed: int = 0) -> float:
        """Milliseconds of a network's pass.

        Args:
            architecture: what to build.
            seed: of its weights, on which no latency depends.
        """
        network = self._part_of(self.task.build_network(architecture, seed))
        if self._table is None or self.lookup is None:
            return measure_latency(network, self.settings).milliseconds
        if self._table.measure(network):
            # Before any score rests on it: a run that dies now finds the same numbers again.
            try:
                self._table.save(self.lookup)
            except OSError as error:
                raise CatchmarkError(f"lookup: {explain(error)}") from error
        return self._table.estimate(network)

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
            return isinstance(self.task.wrap(network), ClassificationModule)


def _table(path: Path, settings: LatencySettings) -> OperatorLatencies:
    """The table in a file, or an empty one that will be written there."""
    if path.exists():
        return OperatorLatencies.load(path, settings)
    if not path.parent.is_dir():
        raise ValueError(f"lookup: there is no folder '{path.parent}' to keep '{path.name}' in")
    return OperatorLatencies(settings)
