"""One training of a study, and what it gave: plain values that travel between processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.errors import RunError
from search.evaluation import Architecture
from search.training.tensor_files import copy_tensors, load_tensors, save_tensors

Landmarks = list[tuple[Architecture, Any]]
"""Architectures and their stand-alone performance; or, of landmarks that nobody trains, a tuple of opinions of it."""

STAND_ALONE = "stand_alone"
"""The part of the journal that holds what stand-alone training gives."""
LANDMARK, MEASURED, FOUND, ADDED = "landmark", "measured", "found", "added landmark"
"""What an architecture was evaluated as: the stage of its record. Measured rounds add their epoch."""
OUTCOME_KEY = "_Keeper"
"""Where a checkpoint keeps the outcome among its callbacks' states: as in earlier versions, whose trainings go on."""


@dataclass
class Outcome:
    """What a training gave so far.

    Attributes:
        epochs: completed.
        rounds: (epoch, [(score, loss) of each measured architecture]) each time that the ranking was measured.
        found: the architectures that the method itself chose, best first, and their scores with shared weights.
        iterations: that have added landmarks.
        added: landmarks that iterations added, and their stand-alone performance.
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
        landmarks: of the start, and their stand-alone performance; empty where the method uses none.
        measured: architectures whose ranking is measured, and their stand-alone performance.
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
        outcome: of the training so far.
    """

    job: Job
    until: int
    start: str | None = None
    outcome: Outcome = field(default_factory=Outcome)


def stretch_of(plain: Mapping[str, Any]) -> Stretch:
    """The stretch of which JSON has carried `dataclasses.asdict`."""
    job = dict(plain["job"])
    job |= {key: _landmarks(job[key]) for key in ("landmarks", "measured")} | {"methods": tuple(job["methods"])}
    outcome = Outcome(**plain["outcome"])
    outcome.rounds = [(epoch, [(score, loss) for score, loss in pairs]) for epoch, pairs in outcome.rounds]
    outcome.found, outcome.added = (
        [(list(arch), value) for arch, value in pairs] for pairs in (outcome.found, outcome.added)
    )
    return Stretch(**{**plain, "job": Job(**job), "outcome": outcome})


def _landmarks(pairs: Sequence[tuple[Sequence[int], Any]]) -> Landmarks:
    return [(tuple(arch), tuple(worth) if isinstance(worth, list) else worth) for arch, worth in pairs]


# ---- in the run's folder -------------------------------------------------------------------------------------------


def checkpoint_of(folder: Path, place: str) -> Path:
    """Where a training keeps its checkpoint."""
    return folder / "supernets" / place / "last.ckpt"


def read_outcome(checkpoint: Path) -> Outcome:
    """What a training gave up to its checkpoint, and what was chosen there since.

    Raises:
        RunError: the checkpoint is damaged, or none of a supernet's training.
    """
    path = checkpoint
    try:
        # Weights are read when they are asked for: who only asks for the outcome does not wait for them.
        outcome = Outcome(**load_tensors(path, mmap=True)["callbacks"][OUTCOME_KEY])
        if (path := _chosen(checkpoint)).is_file():
            chosen = Outcome(**load_tensors(path))
            outcome = chosen if chosen.epochs == outcome.epochs else outcome
        return outcome
    except Exception as error:
        raise RunError(
            f"{path} is not a checkpoint of a supernet's training, or damaged ({type(error).__name__}); remove it to "
            "train that one from the start"
        ) from error


def keep_chosen(checkpoint: Path, start: Path, outcome: Outcome) -> None:
    """Keep what was chosen behind the last epoch, beside the training's checkpoint.

    Args:
        checkpoint: of the training.
        start: the one that was chosen from: it may still be that of a training that went before.
        outcome: of the training so far.
    """
    if start != checkpoint and not checkpoint.is_file():
        copy_tensors(start, checkpoint)
    save_tensors(_chosen(checkpoint), asdict(outcome))


def _chosen(checkpoint: Path) -> Path:
    return checkpoint.with_name("chosen.pt")
