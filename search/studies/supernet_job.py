"""One training of a study, and what it gave: plain values that travel between processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.evaluation import Architecture

Landmarks = list[tuple[Architecture, float]]
"""Architectures, and what each is worth."""

STAND_ALONE = "stand_alone"
"""The part of the journal that holds what stand-alone training gives."""
LANDMARK, MEASURED, FOUND, ADDED = "landmark", "measured", "found", "added landmark"
"""What an architecture was evaluated as: the stage of its record. Measured rounds add their epoch."""


@dataclass
class Outcome:
    """What a training gave so far.

    Attributes:
        epochs: that it is behind.
        rounds: (epoch, [(score, loss) of each measured architecture]) each time that the ranking was measured.
        found: the architectures that the method itself chose, best first, and their scores with shared weights.
        iterations: that have added landmarks.
        added: landmarks that iterations added, and what they are worth.
        history: of every epoch what there is to say, by name.
        seconds: spent in training, in measuring and in choosing, by what it was.
    """

    epochs: int = 0
    rounds: list[tuple[int, list[tuple[float, float]]]] = field(default_factory=list)
    found: list[tuple[list[int], float]] = field(default_factory=list)
    iterations: int = 0
    added: list[tuple[list[int], float]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "measuring": 0.0, "choosing": 0.0})


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        place: its folder's name below ``supernets``.
        method: its name.
        trial: which repetition.
        landmarks: of the start, and what each is worth; empty where the method uses none.
        measured: architectures whose ranking is measured, and what each is worth.
        until: stop after so many epochs, as a warm-up that other methods start from; None for the whole training.
        start: the place of a training to start from, which was the same up to there.
        begins: epochs of that one.
        methods: names of all that this training is for; of a warm-up, several.
    """

    place: str
    method: str
    trial: int
    landmarks: Landmarks
    measured: Landmarks
    until: int | None = None
    start: str | None = None
    begins: int = 0
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """Some epochs of a training in one go.

    Attributes:
        job: the training.
        until: the epoch behind which it ends.
        start: the place of the checkpoint to go on from; None to begin.
        epochs: that this checkpoint is behind.
    """

    job: Job
    until: int
    start: str | None = None
    epochs: int = 0


def stretch_of(plain: Mapping[str, Any]) -> Stretch:
    """The stretch of which JSON has carried `dataclasses.asdict`."""
    job = dict(plain["job"])
    job |= {key: _landmarks(job[key]) for key in ("landmarks", "measured")} | {"methods": tuple(job["methods"])}
    return Stretch(**{**plain, "job": Job(**job)})


def _landmarks(pairs: Sequence[tuple[Sequence[int], float]]) -> Landmarks:
    return [(tuple(architecture), worth) for architecture, worth in pairs]


def checkpoint_of(folder: Path, place: str) -> Path:
    """Where a training keeps its checkpoint."""
    return folder / "supernets" / place / "last.ckpt"
