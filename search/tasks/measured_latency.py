"""A task whose reward weighs what training gave by how fast the network runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from lightning_modules.networks.cost.latency import Precision
from search.rewards.latency import MeasuredLatency
from search.spaces.base import SearchSpace
from search.tasks.reward import RewardTask
from search.tasks.trained import TrainedTask


class MeasuredLatencyTask(RewardTask):
    """The reward ``quality x (latency / target)^exponent`` of a trained network (MnasNet, eq. 2; CATCH, sec. 4.3.1).

    Another task trains the network; its score is the quality, which must not be below 0. Then the latency of the same
    network is measured, as `search.rewards.latency.MeasuredLatency` does it.

    Args:
        space: of both tasks.
        task: trains; it is made with the same space.
        target_milliseconds: the latency at which reward and quality are equal.
        target: instead, an architecture of the space whose latency is the target.
        exponent: w, at most 0. MnasNet uses -0.07: twice the latency costs 5 % of the quality.
        resolution: this and what follows as for `MeasuredLatency`.
        batch: see there.
        device: see there.
        threads: see there.
        precision: see there.
        channels_last: see there.
        part: see there.
        lookup: see there.
        warmup: see there.
        repeats: see there.
        rounds: see there.
        objectives: as for `RewardTask`.

    Raises:
        ValueError: a number is out of range, there is not exactly one target, this machine has no such device, or the
            look-up file is of another machine or setting.
    """

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
        inner = task(space)
        term = MeasuredLatency(
            inner,
            target_milliseconds,
            target,
            alpha=exponent,
            resolution=resolution,
            batch=batch,
            device=device,
            threads=threads,
            precision=precision,
            channels_last=channels_last,
            part=part,
            lookup=lookup,
            warmup=warmup,
            repeats=repeats,
            rounds=rounds,
        )
        self._compose(inner, [term], objectives=objectives)

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
