"""Some epochs of a supernet's training in one go: what several processes may do together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
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
from search.runs.tensor_files import load_tensors, save_tensors
from search.statistics.rank_correlation import sparse_kendall_tau
from search.studies.supernet_job import Job, Outcome, Stretch, checkpoint_of
from search.tasks.trained import construct_trainer
from search.training.checkpoints import WholeCheckpoints
from search.training.isolation import isolated, quiet_lightning, seed_global_streams
from search.training.trainer_arguments import listed

if TYPE_CHECKING:
    from search.studies.supernet_study import SupernetStudy

Tell = Callable[[int, dict[str, float], bool], None]
"""Told of epochs: how many, what there is to say, and whether they were made now."""


def make_module(study: SupernetStudy, method: str, trial: int) -> SupernetModule:
    """A fresh supernet with the sampler of a method, and without landmarks."""
    chosen, seed = study.methods[method], derive_seed(study.seed + trial, "supernet")
    with torch.random.fork_rng(devices=[]):
        seed_global_streams(derive_seed(seed, "weights"))
        norm = partial(BatchStatistics, affine=study.affine)
        supernet = study.space.build_supernet_from(norm, study.head(method))
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


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Outcome]:
    """A checkpoint, and what its training gave so far.

    Raises:
        RunError: it is damaged, or none of a supernet's training.
    """
    try:
        # Weights are read when they are asked for: who only asks for the outcome does not wait for them.
        state = load_tensors(path, mmap=True)
        return state, Outcome(**state["callbacks"][_Keeper.__qualname__])
    except Exception as error:
        raise RunError(
            f"{path} is not a checkpoint of a supernet's training, or damaged ({type(error).__name__}); remove it to "
            "train that one from the start"
        ) from error


def replace_outcome(state: dict[str, Any], outcome: Outcome, path: Path) -> None:
    """Write a checkpoint anew, with another outcome, in one stroke."""
    state["callbacks"][_Keeper.__qualname__] = asdict(outcome)
    save_tensors(path, state)


@contextmanager
def settings_of_training(study: SupernetStudy) -> Iterator[None]:
    """What holds wherever a supernet is trained or asked; nothing of it stays."""
    with isolated(), quiet_lightning():
        if study.threads is not None:
            torch.set_num_threads(study.threads)
        yield


def make_trainer(study: SupernetStudy, **arguments: Any) -> Trainer:
    """A Trainer as the study wants it, ``callbacks`` behind its own.

    Raises:
        RunError: Lightning refuses what the study says of it, or this machine can't do it.
    """
    arguments = {
        "devices": 1,
        "accelerator": "auto",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "logger": False,
        **arguments,
        **study.trainer,
        "callbacks": [*listed(study.trainer.get("callbacks")), *arguments.get("callbacks", [])],
        "plugins": [*listed(study.trainer.get("plugins")), WholeCheckpoints()],
    }
    return construct_trainer(study.trainer, **arguments)


def train_stretch(study: SupernetStudy, folder: Path, stretch: Stretch, tell: Tell) -> None:
    """Train some epochs; what they gave lies in the checkpoint.

    Args:
        study: what the recipe describes.
        folder: the run's folder.
        stretch: which epochs of which training.
        tell: told of every epoch.
    """
    job = stretch.job
    with settings_of_training(study):
        module = make_module(study, job.method, job.trial)
        data: Any = study.data
        data.reseed(derive_seed(study.seed + job.trial, "data"))
        callbacks = [_Keeper(study, job, tell), _Saver(checkpoint_of(folder, job.place))]
        trainer = make_trainer(study, max_epochs=stretch.until, callbacks=callbacks)
        seed_global_streams(derive_seed(study.seed + job.trial, "training"))
        start = None if stretch.start is None else checkpoint_of(folder, stretch.start)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
        except SystemExit as error:  # Lightning turns Ctrl+C into SystemExit
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        finally:
            data.trainer = None


class _Saver(Checkpoint):
    """Keeps the state behind every epoch, after all others had their say about it."""

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Replace the checkpoint in one stroke."""
        trainer.save_checkpoint(self.checkpoint)


class _Keeper(Callback):
    """Counts epochs and measures at their end."""

    def __init__(self, study: SupernetStudy, job: Job, tell: Tell):
        self.study, self.job, self.tell = study, job, tell
        self.outcome = Outcome()
        self._began = time.monotonic()

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps this."""
        return type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return asdict(self.outcome)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind it."""
        self.outcome = Outcome(**state)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Take up the landmarks of the start, and those that earlier iterations added."""
        assert isinstance(module, SupernetModule)
        added = [(tuple(arch), worth) for arch, worth in self.outcome.added]
        module.regularizer = self.study.regularizer(self.job.method, [*self.job.landmarks, *added])

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure the ranking where it is time to."""
        assert isinstance(module, SupernetModule)
        outcome = self.outcome
        outcome.epochs = trainer.current_epoch + 1
        outcome.seconds["training"] += time.monotonic() - self._began
        values = module.epoch_values()
        if outcome.epochs in self.study.measured_epochs(self.job.method):
            values["s_kdt"] = self._measure(module, outcome.epochs)
        outcome.history.append(values)
        self.tell(1, values, True)

    def _measure(self, module: SupernetModule, epoch: int) -> float:
        """On every rank the same, step by step: normalisation asks them all."""
        began = time.monotonic()
        batches, calibration = self.study.evaluation_batches()
        scores = evaluate_paths(module, [arch for arch, _ in self.job.measured], batches, calibration)
        self.outcome.rounds.append((epoch, [(each.score, each.loss) for each in scores]))
        self.outcome.seconds["measuring"] += time.monotonic() - began
        worth = [each for _, each in self.job.measured]
        return sparse_kendall_tau(worth, [each.score for each in scores], self.study.threshold)
