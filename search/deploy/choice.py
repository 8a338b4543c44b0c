"""What to train in full: an architecture of a run, and the training that its target or a file describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.deploy.shared_start import FoundSupernet, SharedStart, find_supernet
from search.errors import CatchmarkError, explain, nearest
from search.evaluation import Architecture
from search.recipes.build import build, description_of
from search.recipes.recipe import load_recipe, read_recipe
from search.recipes.trust import RECIPE, Trust, check_links
from search.results.search import best_of_target
from search.runs.folders import CONFIG, JOURNAL
from search.runs.journal import Journal
from search.spaces.base import SearchSpace
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.studies.supernet_study import SupernetStudy
from search.tasks.base import Task, all_parts
from search.tasks.trained import TrainedTask

TRAINED = "trained"
"""The folder of a run that holds what was trained in full, a folder for each target."""


@dataclass(frozen=True)
class Choice:
    """One full training: a pure function of all but what says where it comes from.

    Attributes:
        space: the run's.
        architecture: what is trained.
        task: trains it; its epochs are those of the full training.
        seed: of everything.
        target: the run's target that it was found for; None where the run has none.
        agent: who found it; None where it was named by hand.
        search_score: what it scored in the search; None where it was named by hand.
        recipe: the name of the run's.
        keep: the weights of which epoch: of the ``best`` by the task's score, or of the ``last``.
        shared: the shared weights that it begins with; None for fresh ones.
    """

    space: SearchSpace
    architecture: Architecture
    task: TrainedTask
    seed: int
    target: str | None
    agent: str | None
    search_score: float | None
    recipe: str = ""
    keep: Literal["best", "last"] = "best"
    shared: SharedStart | None = None


@dataclass(frozen=True)
class Request:
    """What a user asks to be trained in full.

    Attributes:
        run: the run's folder; the run may still be going on.
        target: one of its targets; None for the only one.
        agent: take the best that this agent found; None for the best of all.
        architecture: take this one, in the space's canonical form, instead.
        task_file: a YAML file with the ``class_path`` and ``init_args`` of a `TrainedTask`, which is code as a recipe
            is; None for the target's own.
        epochs: in place of the task's.
        seed: in place of the run's.
        keep: the weights of which epoch: of the ``best`` by the task's score, or of the ``last``.
        trust: what the run's recipe may name.
        from_supernet: which supernet's weights it begins with (`search.deploy.shared_start.find_supernet`); None for
            fresh ones.
        augmentation: values of a `datamodules.augmentation.Augmentation`, in place of that of the task's data; None for
            that one.
    """

    run: Path
    target: str | None = None
    agent: str | None = None
    architecture: str | None = None
    task_file: Path | None = None
    epochs: int | None = None
    seed: int | None = None
    keep: Literal["best", "last"] = "best"
    trust: Trust = Trust()  # noqa: RUF009 - frozen
    from_supernet: str | None = None
    augmentation: Mapping[str, float] | None = None


def choose(request: Request) -> Choice:
    """What to train of a run.

    Raises:
        CatchmarkError: there is no such run, target, agent or architecture, nothing succeeded yet, or the target is
            nothing that can be trained.
    """
    run, target, study = request.run, request.target, study_of(request)
    if isinstance(study, Experiment):
        target = target_of(study, target)
    elif request.from_supernet is None and (request.architecture is None or request.task_file is None):
        raise CatchmarkError(
            f"{run} is a run of a {type(study).__name__}, which has no targets; name what to train: "
            "--architecture STRING --task FILE.yaml, or --from-supernet METHOD of a study of supernets"
        )
    elif target is not None:
        raise CatchmarkError(f"{run} is a run of a {type(study).__name__}, which has no targets; leave out --target")
    supernet = _supernet(request, study, target)
    finder, score = None, None
    if request.architecture is not None:
        arch = _parse(study, request.architecture)
    elif isinstance(study, Experiment):
        assert target is not None
        arch, finder, score = _best(run, study, target, request.agent)
    else:
        assert supernet is not None
        arch, score = supernet.best()
        finder = supernet.method
    task = _task(request, study, target)
    seed = study.seed if request.seed is None else request.seed
    shared = None if supernet is None else supernet.start(task, arch, seed)
    return Choice(study.space, arch, task, seed, target, finder, score, study.name, request.keep, shared)


def _supernet(request: Request, study: Study, target: str | None) -> FoundSupernet | None:
    """The supernet whose weights are inherited, if they are."""
    if request.from_supernet is None:
        return None
    task = study.targets[target] if isinstance(study, Experiment) and target is not None else None
    found = find_supernet(request.from_supernet, request.run, study, task, request.trust)
    if not isinstance(study, Experiment) and found.study is not study and request.architecture is None:
        raise CatchmarkError(
            "--from-supernet: that is the supernet of another run; train that one's, or name an --architecture"
        )
    return found


def _task(request: Request, study: Study, target: str | None) -> TrainedTask:
    """How to train: as a file says, as the target does, or, of a study of supernets, as its ground truth does."""
    if request.task_file is not None:
        key, described, trust = f"--task {request.task_file}", read_recipe(request.task_file), RECIPE
    elif isinstance(study, Experiment):
        assert target is not None
        key, described, trust = (
            f"targets.{target}",
            _training_of(study.targets[target], f"target '{target}'"),
            request.trust,
        )
    else:
        assert isinstance(study, SupernetStudy)
        key, described, trust = "truth", _training_of(study.truth, "ground truth"), request.trust
    if request.epochs is not None:
        if (described.get("init_args") or {}).get("stages"):
            raise CatchmarkError(
                "--epochs: the training has stages with epochs of their own; change these in a --task file"
            )
        described = described | {"init_args": {**(described.get("init_args") or {}), "epochs": request.epochs}}
    if request.augmentation is not None:
        described = _augmented(described, request.augmentation)
    return build_task(described, key, study.space, trust)


def _augmented(described: Mapping[str, Any], augmentation: Mapping[str, float]) -> dict[str, Any]:
    """A description of a training whose data have another augmentation; what they don't take is refused when built."""
    arguments = dict(described.get("init_args") or {})
    data = arguments.get("data")
    data = {"class_path": data} if isinstance(data, str) else dict(data or {})
    data["init_args"] = {**(data.get("init_args") or {}), "augmentation": dict(augmentation)}
    return {**described, "init_args": {**arguments, "data": data}}


def study_of(request: Request) -> Study:
    """What the run's recipe describes.

    Raises:
        CatchmarkError: it is no run's folder, or has a link that leads out of it.
    """
    run = request.run
    if not (run / CONFIG).is_file():
        raise CatchmarkError(f"{run} is not a run folder: it has no {CONFIG}")
    check_links(run)
    return load_recipe(run / CONFIG, trust=request.trust)[0]


def target_of(study: Experiment, target: str | None) -> str:
    """The target that a user means, by its name or because it is the only one."""
    if target is None:
        if len(study.targets) > 1:
            raise CatchmarkError(
                f"the run has several targets, name one with --target; targets: {', '.join(study.targets)}"
            )
        return next(iter(study.targets))
    if target not in study.targets:
        raise CatchmarkError(f"--target: there is no target '{target}'{nearest(target, study.targets, 'targets')}")
    return target


def _best(run: Path, study: Experiment, target: str, agent: str | None) -> tuple[Architecture, str, float]:
    """The architecture of the best score on a target, the first of equals; who found it, and the score."""
    if agent is not None and agent not in study.agent_names:
        raise CatchmarkError(
            f"--agent: there is no agent '{agent}' in the run{nearest(agent, study.agent_names, 'agents')}"
        )
    with closing(Journal(run / JOURNAL, writable=False)) as journal:
        summary = study.summarise(journal)
    entries: Mapping[str, Any] = summary["targets"].get(target, {}).get("agents", {})
    found = best_of_target({name: entry for name, entry in entries.items() if agent in (None, name)})
    if found is None:
        whose = "of any agent" if agent is None else f"of the agent '{agent}'"
        raise CatchmarkError(
            f"{run}: no evaluation {whose} has succeeded on '{target}' yet within its limits; go on with the run, or "
            "name an --architecture"
        )
    finder, best = found
    return study.space.check(best["choices"]), finder, best["score"]


def _parse(study: Study, architecture: str) -> Architecture:
    try:
        return study.space.parse(architecture)
    except ValueError as error:
        raise CatchmarkError(f"--architecture: {explain(error)}") from error


def _training_of(task: Task, what: str) -> dict[str, Any]:
    """The description of the training that a score comes from, inside of what weighs it."""
    for part in all_parts(task):
        if isinstance(part, TrainedTask):
            return description_of(part)
    raise CatchmarkError(
        f"the {what} is a {type(task).__name__}, which trains no network; say how to train one: "
        "--task FILE.yaml, with the class_path and init_args of a TrainedTask"
    )


def build_task(described: dict[str, Any], key: str, space: SearchSpace, trust: Trust = RECIPE) -> TrainedTask:
    """The training that a part of a recipe describes.

    Args:
        described: ``class_path`` and ``init_args``.
        key: where it stands, for messages.
        space: of the network.
        trust: what the description may name.

    Raises:
        CatchmarkError: the description is wrong, or is of nothing that trains a network.
    """
    task = build(described, Callable[[SearchSpace], Task], key, trust, [space])
    if not isinstance(task, TrainedTask):
        raise CatchmarkError(f"{key}: {type(task).__name__} trains no network, a TrainedTask is needed")
    return task
