"""``catchmark train``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.commands import add_trust
from search.errors import CatchmarkError, nearest

if TYPE_CHECKING:
    from search.deploy.choice import Request
    from search.training.launch import Launch

HELP = "Train the best architecture that a run found in full, or go on with that, and keep its weights."
MORE = (
    "The training is that of the target's own task, or of a YAML file with the class_path and init_args of a "
    "TrainedTask."
)
EXAMPLE = "catchmark train runs/quickstart/latest --epochs 100"
NAMES_CODE = ("task",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to train, and how."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--target", metavar="NAME", help="which of the run's targets; needed where it has several")
    parser.add_argument("--agent", metavar="NAME", help="the best of this agent, instead of the best of all")
    parser.add_argument("--architecture", metavar="STRING", help="this architecture instead")
    parser.add_argument("--front", action="store_true", help="every network on the Pareto front of the objectives")
    parser.add_argument("--task", type=Path, metavar="FILE", help="how to train; needed where the target is a table")
    parser.add_argument("--epochs", type=int, metavar="N", help="in place of the task's")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="in place of RUN/trained/TARGET, or of RUN/front/TARGET"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="in place of the run's")
    parser.add_argument(
        "--keep",
        choices=("best", "last"),
        default="best",
        help="the weights of which epoch: of the best by the target's score (the default), or of the last",
    )
    parser.add_argument(
        "--from-supernet",
        nargs="?",
        const="",
        metavar="SUPERNET",
        help="begin with the weights that a supernet has shared, not with fresh ones: a method of the run, or a folder "
        "RUN/supernets/METHOD-TRIAL; needs no name where there is only one",
    )
    parser.add_argument(
        "--augment",
        nargs="+",
        metavar="NAME=VALUE",
        help="of training images, in place of the target's own: randaugment, magnitude, cutout, erasing, mixup, cutmix "
        "and mixed (datamodules.augmentation.Augmentation), as in --augment randaugment=2 mixup=0.2",
    )
    add_trust(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(chosen: argparse.Namespace) -> int:
    """Train, or help another rank to; the first says what came of it."""
    from search.deploy.choice import Request
    from search.deploy.trained_folder import help_to_train, in_words, train_run
    from search.recipes.trust import trust_of
    from search.training.launch import find_launch

    request = Request(
        chosen.folder,
        target=chosen.target,
        agent=chosen.agent,
        architecture=chosen.architecture,
        task_file=chosen.task,
        epochs=chosen.epochs,
        seed=chosen.seed,
        keep=chosen.keep,
        trust=trust_of(chosen.trust),
        from_supernet=chosen.from_supernet,
        augmentation=None if chosen.augment is None else _augmentation(chosen.augment),
    )
    launch = find_launch()
    if chosen.front:
        return _train_front(request, chosen, launch)
    if launch.rank > 0:
        return help_to_train(request, chosen.out, launch)
    print(in_words(train_run(request, chosen.out, chosen.quiet, launch)))
    return 0


def _train_front(request: Request, chosen: argparse.Namespace, launch: Launch) -> int:
    from search.deploy.front import help_to_train_front, read_front, train_front
    from search.runs.folders import settled

    if chosen.agent or chosen.architecture:
        raise CatchmarkError("--front: it is that of all agents, so neither --agent nor --architecture goes with it")
    request = dataclasses.replace(request, run=settled(request.run))
    front = read_front(request)
    if launch.rank > 0:
        return help_to_train_front(request, front, chosen.out, launch)
    page = train_front(request, front, chosen.out, chosen.quiet, launch)
    print(f"{len(front.points)} networks\nreport:  {page}")
    return 0


def _augmentation(words: Sequence[str]) -> dict[str, float]:
    """The numbers that a user gives, by name."""
    from datamodules.augmentation import Augmentation

    known: dict[str, type] = {name: type(value) for name, value in vars(Augmentation()).items()}
    given: dict[str, float] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise CatchmarkError(f"--augment: there is no '{name}'{nearest(name, known, 'known')}")
        try:
            given[name] = known[name](value)
        except ValueError:
            raise CatchmarkError(
                f"--augment {name}: '{value}' is not a number of its kind ({known[name].__name__})"
            ) from None
    try:
        Augmentation(**given)  # type: ignore[arg-type]
    except ValueError as error:
        raise CatchmarkError(f"--augment: {error}") from error
    return given
