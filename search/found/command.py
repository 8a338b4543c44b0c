"""``catchmark train``: train what a run found, and leave a folder that is loaded and exported from."""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError, RunError
from search.found.choice import TRAINED, Choice, choose, settled
from search.found.network import (
    ABOUT,
    CLASSIFICATION,
    FORMAT,
    WEIGHTS,
    load_module,
    network_of,
    read_about,
    replace_durably,
)
from search.locking import FileLock
from search.recipes.words import explain
from search.run import Interrupted
from search.summary import write_json

if TYPE_CHECKING:
    from search.found.training import Trained

REPORT, CHECKPOINT = "report.html", "last.ckpt"
_SAME = ("space", "architecture", "task", "seed")
"""What a training is a function of; another one does not belong into its folder."""


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

    Returns:
        The folder that now holds the network; None in a process that trained beside another one, which says so itself.

    Raises:
        CatchmarkError: what is asked for is not there, or the folder is another training's.
        RunError: the training could not be finished.
        Interrupted: it was stopped; the same again goes on.
    """
    run = settled(run)
    choice = choose(run, target, agent, architecture, task_file, epochs, seed)
    folder = out or run / TRAINED / (choice.target or "chosen")
    if _is_follower():
        _train(folder, choice, quiet=True)
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatchmarkError(f"can't make the folder {folder}: {error.strerror}") from error
    lock = FileLock(folder / "training.lock")
    try:
        about = _about(choice)
        if not _settle(folder, about):
            print(f"{choice.space.format(choice.architecture)}, {choice.task.epochs} epochs", flush=True)
            trained = _train(folder, choice, quiet)
            assert trained is not None
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
        "module": choice.task_part["init_args"].get("module") or CLASSIFICATION,
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


def _settle(folder: Path, about: dict[str, Any]) -> bool:
    """Note what is trained in a new folder; whether the same training stands finished in an old one."""
    if not (folder / ABOUT).is_file():
        write_json(folder / ABOUT, about)
        return False
    earlier = read_about(folder)
    if differing := [key for key in _SAME if earlier[key] != about[key]]:
        raise CatchmarkError(
            f"{folder} holds another training; it differs in: {', '.join(_differences(earlier, about, differing))}; "
            "give this one a folder of its own with --out, or remove that one"
        )
    return earlier["metrics"] is not None and (folder / WEIGHTS).is_file()


def _differences(earlier: Mapping[str, Any], about: Mapping[str, Any], keys: list[str]) -> list[str]:
    """The keys, those of the task by the names of its arguments."""
    names = [key for key in keys if key != "task"]
    if "task" in keys:
        ours, theirs = (each["task"].get("init_args") or {} for each in (earlier, about))
        names += [f"task.{key}" for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)] or ["task"]
    return names


def _is_follower() -> bool:
    """Whether Lightning, torchrun or Slurm started this process to train beside another one, which does the rest."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank), "0") != "0"


def _train(folder: Path, choice: Choice, quiet: bool) -> Trained | None:
    from search.found.training import train

    again = "the same 'catchmark train' again goes on"
    try:
        return train(choice, folder / CHECKPOINT, choice.target or "training", quiet)
    except CatchmarkError:
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {again} behind the last whole epoch") from None
    except Exception as error:
        account = folder / "error.txt"
        with suppress(OSError):
            account.write_text(traceback.format_exc(), encoding="utf-8")
        raise RunError(f"{explain(error)} (traceback in {account}); once the cause is mended, {again}") from error


def _keep(folder: Path, choice: Choice, about: dict[str, Any], trained: Trained) -> None:
    """Write what the training left; the checkpoint goes last, when nothing depends on it any more."""
    from search.found.page import trained_page

    replace_durably(folder / WEIGHTS, trained.weights)
    network = network_of(load_module(folder, about))  # weights that could not be loaded again are worth nothing
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
