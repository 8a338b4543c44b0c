"""Training one supernet of a study: in epochs that can be interrupted, with measurements on the way.

A training is a pure function of (study, method, trial). It keeps a checkpoint after every epoch, and what it measured
lies in the checkpoint too, so whatever stops it, going on gives what an uninterrupted training would have given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.supernet import SupernetModule, evaluate_paths
from search.errors import RunError
from search.randomness import derive_seed
from search.ranking import sparse_kendall_tau
from search.spaces.base import Architecture
from search.tasks.isolation import isolated, quiet_lightning, seed_global_streams

if TYPE_CHECKING:
    from search.supernets.study import SupernetStudy


@dataclass
class Outcome:
    """What a training gave.

    Attributes:
        rounds: (epoch, [(score, loss) of each measured architecture]) each time that the ranking was measured.
        found: the architectures that the method itself chose, best first, and their scores with shared weights.
        added: landmarks that iterations added, and what they are worth.
        seconds: spent in training, in measuring and in choosing, by what it was.
    """

    rounds: list[tuple[int, list[tuple[float, float]]]] = field(default_factory=list)
    found: list[tuple[list[int], float]] = field(default_factory=list)
    added: list[tuple[list[int], float]] = field(default_factory=list)
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
    landmarks: list[tuple[Architecture, float]]
    measured: list[tuple[Architecture, float]]
    until: int | None = None
    start: str | None = None
    begins: int = 0
    methods: tuple[str, ...] = ()


Tell = Callable[[int, dict[str, float], bool], None]
"""Told of epochs: how many, what there is to say, and whether they were made now."""


def checkpoint_of(folder: Path, place: str) -> Path:
    """Where a training keeps its checkpoint."""
    return folder / "supernets" / place / "last.ckpt"


def make_module(study: SupernetStudy, method: str, trial: int) -> SupernetModule:
    """A fresh supernet with the sampler of a method, and without landmarks."""
    chosen, seed = study.methods[method], derive_seed(study.seed + trial, "supernet")
    with torch.random.fork_rng(devices=[]):
        seed_global_streams(derive_seed(seed, "weights"))
        norm = partial(BatchStatistics, affine=study.affine)
        supernet = study.space.build_supernet(norm, **study.head(method))
        if study.channels_last:
            supernet = supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        sampler = chosen.sampler(study.space)
    return SupernetModule(
        supernet,
        sampler,
        objective=study.objective,
        settings=study.settings_of(method),
        seed=derive_seed(seed, "paths"),
    )


def load_module(study: SupernetStudy, folder: Path, method: str, trial: int = 0) -> SupernetModule:
    """A trained supernet, from its checkpoint.

    Raises:
        RunError: it is not there, or damaged.
    """
    path = checkpoint_of(folder, f"{method}-{trial}")
    module = make_module(study, method, trial)
    try:
        module.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["state_dict"])
    except OSError as error:
        raise RunError(f"{path} can't be read ({error.strerror}): has the supernet been trained?") from error
    except Exception as error:
        raise RunError(f"{path} is not a checkpoint of this supernet, or damaged ({type(error).__name__})") from error
    return module


def train(study: SupernetStudy, folder: Path, job: Job, tell: Tell) -> Outcome:
    """Train a supernet to the end, from wherever its checkpoint stands.

    Args:
        study: what the recipe describes.
        folder: the run's folder.
        job: which training.
        tell: told of every epoch.
    """
    checkpoint = checkpoint_of(folder, job.place)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    method = study.methods[job.method]
    until = study.settings_of(job.method).epochs if job.until is None else job.until
    with isolated(), quiet_lightning():
        if study.threads is not None:
            torch.set_num_threads(study.threads)
        module = make_module(study, job.method, job.trial)
        module.regularizer = study.regularizer(job.method, job.landmarks)
        data: Any = study.data
        data.reseed(derive_seed(study.seed + job.trial, "data"))
        keeper, saver = _Keeper(study, job, tell), _Saver(checkpoint)
        earlier = checkpoint if job.start is None or checkpoint.is_file() else checkpoint_of(folder, job.start)
        trainer = Trainer(
            **{
                "max_epochs": until,
                "devices": 1,
                "accelerator": "auto",
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
                "logger": _logger(study, folder, job),
                **study.trainer,
                "callbacks": [keeper, saver],
            }
        )
        seed_global_streams(derive_seed(study.seed + job.trial, "training"))
        try:
            trainer.fit(module, datamodule=data, ckpt_path=earlier if earlier.is_file() else None, weights_only=True)
        except SystemExit as error:  # Lightning turns Ctrl+C into SystemExit
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        finally:
            data.trainer = None
        if job.until is None and not keeper.outcome.found:
            keeper.choose(module, method.found)
            saver.save(trainer)
    return keeper.outcome


def _logger(study: SupernetStudy, folder: Path, job: Job) -> Any:
    """One W&B run a training, offline unless ``WANDB_MODE`` says otherwise; none for a warm-up."""
    mode = os.environ.get("WANDB_MODE") or "offline"
    if job.until is not None or mode == "disabled":
        return False
    from pytorch_lightning.loggers import WandbLogger

    os.environ.setdefault("WANDB_SILENT", "true")
    identity = f"{derive_seed(str(folder.resolve()), job.method, job.trial):x}"
    return WandbLogger(
        name=f"{study.name}/{job.method}/{job.trial}",
        project=os.environ.get("WANDB_PROJECT", "catchmark"),
        save_dir=folder,
        id=identity,
        resume="allow",
        group=study.name,
        job_type=job.method,
        tags=[study.space.name, job.method, f"seed {study.seed + job.trial}"],
        offline=mode != "online",
    )


class _Saver(Checkpoint):
    """Keeps the state behind every epoch, after all others had their say about it."""

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep it."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Replace the checkpoint in one stroke."""
        partial = self.checkpoint.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.checkpoint)


class _Keeper(Callback):
    """Measures and adds landmarks at the end of an epoch."""

    def __init__(self, study: SupernetStudy, job: Job, tell: Tell):
        self.study, self.job, self.tell = study, job, tell
        self.outcome = Outcome()
        self._began = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return asdict(self.outcome)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind it."""
        self.outcome = Outcome(**state)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Take up the landmarks that earlier iterations added."""
        assert isinstance(module, SupernetModule)
        self._use_landmarks(module)
        if trainer.current_epoch > self.job.begins:
            self.tell(trainer.current_epoch - self.job.begins, {}, False)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure the ranking and add landmarks where it is time to."""
        assert isinstance(module, SupernetModule)
        outcome, study, job = self.outcome, self.study, self.job
        done = trainer.current_epoch + 1
        outcome.seconds["training"] += time.monotonic() - self._began
        values = {"loss": float(module._loss.value)}
        if done in study.measured_epochs(job.method):
            values["s_kdt"] = self._measure(module, done)
            module.log("s_kdt", values["s_kdt"], rank_zero_only=True)
        if done in study.iteration_epochs(job.method):
            self._add_landmarks(module)
        self.tell(1, values, True)

    def _measure(self, module: SupernetModule, epoch: int) -> float:
        began = time.monotonic()
        batches, calibration = self.study.evaluation_batches()
        scores = evaluate_paths(module, [arch for arch, _ in self.job.measured], batches, calibration)
        self.outcome.rounds.append((epoch, [(each.score, each.loss) for each in scores]))
        self.outcome.seconds["measuring"] += time.monotonic() - began
        worth = [each for _, each in self.job.measured]
        return sparse_kendall_tau(worth, [each.score for each in scores], self.study.threshold)

    def _evaluate(self, module: SupernetModule) -> Callable[[Sequence[Architecture]], list[float]]:
        batches, calibration = self.study.evaluation_batches()
        return lambda archs: [each.score for each in evaluate_paths(module, archs, batches, calibration)]

    def choose(self, module: SupernetModule, count: int) -> None:
        """Let the method choose, on the trained weights."""
        began = time.monotonic()
        seed = derive_seed(self.study.seed + self.job.trial, "choice")
        evaluate = self._evaluate(module)
        chosen = module.sampler.choose(evaluate, count, seed)
        scores = evaluate(chosen)
        self.outcome.found = [(list(arch), score) for arch, score in zip(chosen, scores, strict=True)]
        self.outcome.seconds["choosing"] += time.monotonic() - began

    def _add_landmarks(self, module: SupernetModule) -> None:
        """The best architectures by the supernet are trained and become landmarks (Landmark Regularization)."""
        began = time.monotonic()
        known = {arch for arch, _ in self.job.landmarks} | {tuple(arch) for arch, _ in self.outcome.added}
        choice = self.study.methods[self.job.method].landmarks_from
        seed = derive_seed(self.study.seed + self.job.trial, "iteration", len(self.outcome.added))
        chosen = module.sampler.choose(self._evaluate(module), choice.added + len(known), seed)
        for arch in [each for each in chosen if each not in known][: choice.added]:
            evaluation = self.study.truth.evaluate(arch, seed)
            if evaluation.status == "ok":
                self.outcome.added.append((list(arch), evaluation.score))
        self._use_landmarks(module)
        self.outcome.seconds["choosing"] += time.monotonic() - began

    def _use_landmarks(self, module: SupernetModule) -> None:
        added = [(tuple(arch), worth) for arch, worth in self.outcome.added]
        module.regularizer = self.study.regularizer(self.job.method, [*self.job.landmarks, *added])
