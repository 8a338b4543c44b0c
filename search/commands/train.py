"""``catchmark train``: train what a run found, and leave a folder that is loaded and exported from."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.deploy.choice import TRAINED, Choice, choose, settled
from search.deploy.network_folder import (
    ABOUT,
    CLASSIFICATION,
    FORMAT,
    WEIGHTS,
    load_module,
    network_of,
    read_about,
)
from search.errors import CatchmarkError
from search.listeners.wandb.connection import WandbConnection
from search.listeners.wandb.trainings import TrainingRuns
from search.recipes.classes import find_class
from search.recipes.trust import RECIPE, trust_of
from search.runs.exit_codes import told_in_one_line
from search.runs.json_files import write_json
from search.runs.locking import FileLock
from search.training.interruption import termination_as_interruption
from search.training.launch import find_launch
from search.training.tensor_files import save_tensors
from search.training.trainer_arguments import arguments_here

if TYPE_CHECKING:
    from search.deploy.training import Fit, Trained

REPORT, CHECKPOINT = "report.html", "last.ckpt"
_SAME = ("space", "architecture", "task", "seed")
"""What a training is a function of; another one does not belong into its folder."""
_KEPT, _AGAIN = "every whole epoch is kept", "the same 'catchmark train' again goes on"


def train_found(
    run: Path,
    target: str | None = None,
    agent: str | None = None,
    architecture: str | None = None,
    task_file: Path | None = None,
    epochs: int | None = None,
    out: Path | None = None,
    seed: int | None = None,
    quiet: bool = False,
    trust: str | Iterable[str] = (),
) -> Path | None:
    """Train the best architecture of a run in full, or go on with that.

    Args:
        run: the run's folder.
        target: as for `choose`, like all that follow.
        agent: see there.
        architecture: see there.
        task_file: see there.
        epochs: see there.
        out: the folder; None for ``RUN/trained/TARGET``.
        seed: see `choose`.
        quiet: no progress bar.
        trust: as for `search.deploy.network_folder.load_network`.

    Where ``torchrun`` or ``srun`` has started several processes, the first of them does all this and the others help to
    train (`search.distributed`).

    Returns:
        The folder that now holds the network; None in a process that has helped.

    Raises:
        CatchmarkError: what is asked for is not there, or the folder is another training's.
        RunError: the training could not be finished.
        Interrupted: it was stopped; the same again goes on.
        SystemExit: this process has helped, and the first one, which says why, ended with this exit code.
    """
    launch, asked = find_launch(), (target, agent, architecture, task_file, epochs, seed, trust_of(trust))
    if launch.ranks == 1:
        choice = choose(run := settled(run), *asked)
        arguments_here(choice.task.trainer, "task", command="train")  # refused before anything is written
        return _train_in_folder(out or _folder(run, choice), choice, quiet)
    from search.deploy.joint_training import JointFit
    from search.distributed.follower import Follower
    from search.distributed.leader import Leader

    about = json.dumps([_versions(), *map(str, (run, *asked, out))])
    if launch.rank > 0:
        follower = Follower(launch)
        with termination_as_interruption():
            if code := follower.follow(lambda: (JointFit(launch), about)):
                raise SystemExit(code)
        return None
    with Leader(launch, f"{_KEPT}: {_AGAIN}") as leader, termination_as_interruption():
        choice = choose(run := settled(run), *asked)
        calls = JointFit(leader.launch, choice, leader.together)
        leader.begin(calls, about)
        return _train_in_folder(out or _folder(run, choice), choice, quiet, calls.fit, leader.searching())


def _folder(run: Path, choice: Choice) -> Path:
    return run / TRAINED / (choice.target or "chosen")


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
            from search.deploy.training import train

            log = TrainingRuns(
                WandbConnection(folder, choice.recipe), choice.space, choice.seed, about, job_type="train"
            )
            with closing(log), told_in_one_line(folder, _KEPT, _AGAIN), around or nullcontext():
                trained = train(choice, folder / CHECKPOINT, log, quiet, together)
            _keep(folder, choice, about, trained)
        return folder
    finally:
        lock.release()


def in_words(folder: Path) -> str:
    """What a trained folder holds, for the terminal."""
    about = read_about(folder)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in about["metrics"].items())
    return f"{metrics}\nweights: {folder / WEIGHTS}\nreport:  {folder / REPORT}"


def _about(choice: Choice) -> dict[str, Any]:
    """What ``network.json`` says before the training."""
    task, build = choice.task, choice.task.build_arguments()
    normalisation = getattr(task.data, "normalisation", None)
    return {
        "format": FORMAT,
        "target": choice.target,
        "agent": choice.agent,
        "search_score": choice.search_score,
        "space": choice.space_part,
        "architecture": choice.space.format(choice.architecture),
        "choices": list(choice.architecture),
        "build": build,
        "num_classes": build["num_classes"],
        "in_channels": build["in_channels"],
        "module": _plain_module(choice.task_part["init_args"].get("module") or CLASSIFICATION),
        "task": choice.task_part,
        "seed": choice.seed,
        "score": task.score,
        "score_name": task.score_name,
        "epochs": task.epochs,
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
    if differing := [key for key in _SAME if _said(earlier[key]) != _said(about[key])]:
        raise CatchmarkError(
            f"{folder} holds another training; it differs in: {', '.join(_differences(earlier, about, differing))}; "
            "give this one a folder of its own with --out, or remove that one"
        )
    return earlier["metrics"] is not None and (folder / WEIGHTS).is_file()


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
    from search.reports.trained_network import trained_page

    save_tensors(folder / WEIGHTS, trained.weights)
    network = network_of(load_module(folder, about, RECIPE))  # weights that could not be loaded again are worth nothing
    last = trained.history[-1]
    names = [choice.task.score, *(name for name in last if name not in ("epoch", "seconds", choice.task.score))]
    about = about | {
        "resolution": trained.resolution,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "metrics": {name: last[name] for name in names},
    }
    (folder / REPORT).write_text(trained_page(folder, choice, about, trained.history), encoding="utf-8")
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
