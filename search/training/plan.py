"""How a network is trained, in plain values: what differs between a child network, a supernet and a final network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # jsonargparse resolves these names too, and only when a recipe names stages
    from pytorch_lightning import Callback, LightningModule

Told = Callable[[dict[str, float], bool], None]
"""Told of an epoch: what was logged in it, and whether it was trained now; or, where a training goes on, before."""


class Diverged(Exception):
    """A loss is infinite or not a number."""


class OutOfTime(Exception):
    """The training took too long."""


class StageChange(ABC):
    """What changes when a stage begins, for instance that a part of the network is frozen, or a rate is another one."""

    @abstractmethod
    def __call__(self, module: LightningModule) -> None:
        """Make the change; after an interruption once more, on a module that is as at the start."""


@dataclass(frozen=True)
class TrainingStage:
    """Some epochs of a training.

    Attributes:
        epochs: how many.
        change: made before the first of them, behind those of the stages before it; None for none.
    """

    epochs: int
    change: StageChange | None = None

    def __post_init__(self) -> None:
        """Refuse a stage that is none."""
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}, at least 1 is needed")


@dataclass(frozen=True)
class StopRule:
    """When a training ends before its last epoch.

    Attributes:
        diverged: where something logged is infinite or not a number; that raises `Diverged`.
        deadline: by `time.monotonic`, looked at before each batch; that raises `OutOfTime`. None for none.
        score: the logged metric, higher is better, that ``below`` is about.
        below: where the validated score of an epoch is below this; the training has then ended well. None for nowhere.
        stage: the first stage, from 0, at the ends of whose epochs that is looked at.
    """

    diverged: bool = True
    deadline: float | None = None
    score: str = ""
    below: float | None = None
    stage: int = 0


@dataclass(frozen=True)
class FitPlan:
    """How a network is trained.

    Attributes:
        stages: in order.
        seed: of the order of the data, of augmentation and of dropout.
        trainer: arguments of Lightning's Trainer, as a recipe gives them; what they mean on this machine, and with
            other processes, is found out when the Trainer is made.
        preset: further ones, where ``trainer`` does not say otherwise.
        any_branch: whether the network may have branches that lead nowhere.
        threads: of the CPU; None for as many as torch uses.
        stop: when to end early.
        keep: the checkpoint that is replaced after every epoch; None for none.
        resume: the checkpoint to go on from; None to begin.
        leave: the file that the trained weights are left in; None for nowhere.
        before: epochs that the weights it begins with were trained by the same plan, for that file to say.
        callbacks: before those of the fit itself.
        told: told of every epoch, by the first process alone.
    """

    stages: Sequence[TrainingStage]
    seed: int
    trainer: Mapping[str, Any] = field(default_factory=dict)
    preset: Mapping[str, Any] = field(default_factory=dict)
    any_branch: bool = True
    threads: int | None = None
    stop: StopRule = StopRule()
    keep: Path | None = None
    resume: Path | None = None
    leave: Path | None = None
    before: int = 0
    callbacks: Sequence[Callback] = ()
    told: Told | None = None

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs for stage in self.stages)


def shortened(stages: Sequence[TrainingStage], epochs: int | None) -> list[TrainingStage]:
    """The first epochs of some stages; None for all of them."""
    if epochs is None:
        return list(stages)
    left, kept = epochs, []
    for stage in stages:
        if left < 1:
            break
        kept.append(TrainingStage(min(left, stage.epochs), stage.change))
        left -= kept[-1].epochs
    return kept


def first_epochs(stages: Sequence[TrainingStage]) -> list[int]:
    """The first epoch of each stage, from 0."""
    return [sum(stage.epochs for stage in stages[:k]) for k in range(len(stages))]
