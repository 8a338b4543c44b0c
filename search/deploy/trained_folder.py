"""Trains what a run found in full, and leaves a folder that is loaded and exported from."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.preprocessing import class_names
from search.deploy.choice import TRAINED, Choice, Request, choose
from search.deploy.network_folder import (
    ABOUT,
    CLASSIFICATION,
    FORMAT,
    WEIGHTS,
    load_module,
    network_of,
    read_about,
)
from search.deploy.tested_words import confusion_table, tested_in_short, tested_in_words
from search.errors import CatchmarkError
from search.listeners.several import Several
from search.listeners.tensorboard import tensorboard_listeners
from search.listeners.wandb.connection import WandbConnection
from search.listeners.wandb.trainings import TrainingRuns
from search.recipes.build import description_of
from search.recipes.classes import find_class
from search.recipes.trust import RECIPE
from search.runs.exit_codes import told_in_one_line
from search.runs.folders import settled
from search.runs.json_files import write_json, write_whole
from search.runs.locking import FileLock
from search.training.interruption import termination_as_interruption
from search.training.launch import Launch
from search.training.tensor_files import save_tensors
from search.training.trainer_arguments import arguments_here

if TYPE_CHECKING:
    from search.deploy.training import Fit, Trained

REPORT, CHECKPOINT, CONFUSION = "report.html", "last.ckpt", "confusion.csv"
_SAME = ("space", "architecture", "task", "seed", "keep")
"""What a training is a function of; another one does not belong into its folder."""
_KEPT, _AGAIN = "every whole epoch is kept", "the same 'catchmark train' again goes on"


def train_run(request: Request, out: Path | None = None, quiet: bool = False, launch: Launch = Launch()) -> Path:  # noqa: B008 - frozen
    """Train an architecture of a run in full, or go on with that.

    Where ``torchrun`` or ``srun`` has started several processes, the first of them does this and the others
    `help_to_train`.

    Args:
        request: what to train.
        out: the folder that is to hold it; None for ``RUN/trained/TARGET``.
        quiet: no progress bar.
        launch: how this process was started.

    Returns:
        The folder that now holds the network.

    Raises:
        CatchmarkError: what is asked for is not there, or the folder is another training's.
        RunError: the training could not be finished.
        Interrupted: it was stopped; the same again goes on.
    """
    about = _asked(request, out)
    request = replace(request, run=settled(request.run))
    if launch.ranks == 1:
        choice = choose(request)
        arguments_here(choice.task.trainer, "task", command="train")  # refused before anything is written
        return _train_in_folder(out or _folder(request, choice), choice, quiet)
    from search.deploy.joint_training import JointFit
    from search.distributed.leader import Leader

    with Leader(launch, f"{_KEPT}: {_AGAIN}") as leader, termination_as_interruption():
        choice = choose(request)
        calls = JointFit(leader.launch, choice, leader.together)
        leader.begin(calls, about)
        folder = out or _folder(request, choice)
        return _train_in_folder(folder, choice, quiet, together=calls.fit, around=leader.searching())


def help_to_train(request: Request, out: Path | None, launch: Launch) -> int:
    """Another rank's part of what the first one does in `train_run`.

    Args:
        request: as rank 0 has it.
        out: as rank 0 has it.
        launch: how this process was started.

    Returns:
        The exit code of rank 0, which says why.
    """
    from search.deploy.joint_training import JointFit
    from search.distributed.follower import Follower

    follower = Follower(launch)
    with termination_as_interruption():
        return follower.follow(lambda: (JointFit(launch), _asked(request, out)))


def _asked(request: Request, out: Path | None) -> str:
    """What ranks compare: that they were asked for the same, of the same versions."""
    return json.dumps([_versions(), *map(str, (*vars(request).values(), out))])


def _folder(request: Request, choice: Choice) -> Path:
    return request.run / TRAINED / (choice.target or "chosen")


def _train_in_folder(
    folder: Path,
    choice: Choice,
    quiet: bool,
    together: Fit | None = None,
    around: AbstractContextManager[None] | None = None,
) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatchmarkError(f"can't make the folder {folder}: {error.strerror}") from error
    lock = FileLock(folder / "training.lock")
    try:
        about = _about(choice)
        if not _settle(folder, about):
            print(f"{choice.space.format(choice.architecture)}, {choice.task.epochs} epochs", flush=True)
            from search.deploy.training import SHARED, train

            if choice.shared is not None:
                print(choice.shared.in_words(), flush=True)
                save_tensors(folder / SHARED, dict(choice.shared.state))

            log = Several(
                [
                    TrainingRuns(
                        WandbConnection(folder, choice.recipe), choice.space, choice.seed, about, job_type="train"
                    ),
                    *tensorboard_listeners(folder),
                ]
            )
            with closing(log), told_in_one_line(folder, _KEPT, _AGAIN), around or nullcontext():
                trained = train(choice, folder / CHECKPOINT, log, quiet, together)
            _keep(folder, choice, about, trained)
            (folder / SHARED).unlink(missing_ok=True)
        return folder
    finally:
        lock.release()


def in_words(folder: Path) -> str:
    """What a trained folder holds, for the terminal."""
    about = read_about(folder)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in about["metrics"].items())
    files = f"weights: {folder / WEIGHTS}\nreport:  {folder / REPORT}"
    return f"{_kept_epoch(about)}: {metrics}\n{tested_in_words(about)}\n{files}"


def _kept_epoch(about: Mapping[str, Any]) -> str:
    """Which epoch the weights are of; earlier versions kept the last one."""
    epoch = about.get("kept_epoch") or about["epochs"]
    which = "the best" if about.get("keep") == "best" else "the last"
    return f"epoch {epoch} of {about['epochs']}, {which}"


def _about(choice: Choice) -> dict[str, Any]:
    """What ``network.json`` says before the training."""
    task, build, described = choice.task, choice.task.build_arguments(), description_of(choice.task)
    normalisation = getattr(task.data, "normalisation", None)
    return {
        "format": FORMAT,
        "target": choice.target,
        "agent": choice.agent,
        "search_score": choice.search_score,
        "space": description_of(choice.space),
        "architecture": choice.space.format(choice.architecture),
        "choices": list(choice.architecture),
        "build": build,
        "num_classes": build["num_classes"],
        "in_channels": build["in_channels"],
        "module": _plain_module(described["init_args"].get("module") or CLASSIFICATION),
        "task": described,
        "seed": choice.seed,
        "score": task.score,
        "score_name": task.score_name,
        "epochs": task.epochs,
        "keep": choice.keep,
        "start": None if choice.shared is None else choice.shared.described(),
        "kept_epoch": None,
        "classes": class_names(task.data),
        "preprocessing": None,
        "test": None,
        "normalisation": None if normalisation is None else dict(zip(("mean", "std"), normalisation, strict=True)),
        "resolution": None,
        "parameters": None,
        "metrics": None,
        "versions": _versions(),
    }


def _plain_module(described: dict[str, Any]) -> dict[str, Any]:
    """The description of a module without the programs that it names as configs: what they say in their place."""
    from pytorch_lightning import LightningModule

    found = find_class(described["class_path"], LightningModule, "module")
    plain = getattr(found, "plain_arguments", dict)
    return described | {"init_args": plain(described.get("init_args") or {})}


def _settle(folder: Path, about: dict[str, Any]) -> bool:
    """Note what is trained in a new folder; whether the same training stands finished in an old one."""
    if not (folder / ABOUT).is_file():
        write_json(folder / ABOUT, about)
        return False
    earlier = read_about(folder)
    differing = [key for key in _SAME if key in earlier and _said(earlier[key]) != _said(about[key])]
    differing += ["start"] * (_digest(earlier) != _digest(about))
    if differing:
        raise CatchmarkError(
            f"{folder} holds another training; it differs in: {', '.join(_differences(earlier, about, differing))}; "
            "give this one a folder of its own with --out, or remove that one"
        )
    return earlier["metrics"] is not None and (folder / WEIGHTS).is_file()


def _digest(about: Mapping[str, Any]) -> str | None:
    """Of the shared weights that a training begins with; None for fresh ones, the only ones of earlier versions."""
    return (about.get("start") or {}).get("digest")


def _said(described: Any) -> Any:
    """A description without what it leaves open: later versions have more to leave open."""
    if isinstance(described, dict):
        return {key: _said(value) for key, value in described.items() if value is not None}
    return [_said(each) for each in described] if isinstance(described, list) else described


def _differences(earlier: Mapping[str, Any], about: Mapping[str, Any], keys: list[str]) -> list[str]:
    """The keys, those of the task by the names of its arguments."""
    names = [key for key in keys if key != "task"]
    if "task" in keys:
        ours, theirs = (each["task"].get("init_args") or {} for each in (earlier, about))
        names += [f"task.{key}" for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)] or ["task"]
    return names


def _keep(folder: Path, choice: Choice, about: dict[str, Any], trained: Trained) -> None:
    """Write what the training left; the checkpoint goes last, when nothing depends on it any more."""
    from search.deploy.preprocessing import preprocessing_of
    from search.deploy.testing import measure_on_test_images
    from search.reports.trained_network import trained_page

    save_tensors(folder / WEIGHTS, trained.weights)
    module = load_module(folder, about, RECIPE)  # weights that could not be loaded again are worth nothing
    network, preprocessing = network_of(module), preprocessing_of(choice.task.data, module)
    tested = measure_on_test_images(choice.task, module)
    kept = trained.history[trained.epoch - 1]
    names = [choice.task.score, *(name for name in kept if name not in ("epoch", "seconds", choice.task.score))]
    about = about | {
        "resolution": trained.resolution,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "kept_epoch": trained.epoch,
        "preprocessing": None if preprocessing is None else preprocessing.described(),
        "test": None if tested is None else tested_in_short(tested, choice.task.score, about["classes"]),
        "metrics": {name: kept[name] for name in names},
    }
    if tested is not None and tested.confusion is not None:
        write_whole(folder / CONFUSION, confusion_table(tested.confusion, about["classes"]), _AGAIN)
    page = trained_page(folder, choice, about, trained.history, tested, preprocessing)
    (folder / REPORT).write_text(page, encoding="utf-8")
    write_json(folder / ABOUT, about)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    import pytorch_lightning
    import torch

    from search import __version__

    return {
        "catchmark": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_lightning": pytorch_lightning.__version__,
    }
