"""What to train in full: an architecture of a run, and the training that its target or a file describes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.commands.run import CONFIG, JOURNAL
from search.errors import CatchmarkError
from search.recipes.parts import build_part
from search.recipes.recipe import load_recipe, read_recipe
from search.recipes.trust import RECIPE, Trust, check_links
from search.recipes.words import explain, nearest
from search.recipes.yaml_text import parse_yaml
from search.results.search import best_of_target
from search.runs.journal import Journal
from search.spaces.base import Architecture, SearchSpace
from search.studies.base import Study
from search.studies.experiment import Experiment
from search.tasks.base import Task
from search.tasks.trained import TrainedTask

TRAINED = "trained"
"""The folder of a run that holds what was trained in full, a folder for each target."""


@dataclass(frozen=True)
class Choice:
    """One full training: a pure function of all but the last four.

    Attributes:
        space: the run's.
        space_part: its description, as a recipe has it.
        architecture: what is trained.
        task: trains it; its epochs are those of the full training.
        task_part: its description.
        seed: of everything.
        target: the run's target that it was found for; None where the run has none.
        agent: who found it; None where it was named by hand.
        search_score: what it scored in the search; None where it was named by hand.
        recipe: the name of the run's.
    """

    space: SearchSpace
    space_part: dict[str, Any]
    architecture: Architecture
    task: TrainedTask
    task_part: dict[str, Any]
    seed: int
    target: str | None
    agent: str | None
    search_score: float | None
    recipe: str = ""


def choose(
    run: Path,
    target: str | None = None,
    agent: str | None = None,
    architecture: str | None = None,
    task_file: Path | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    trust: Trust = Trust(),  # noqa: B008 - frozen
) -> Choice:
    """What to train of a run, which may still be going on.

    Args:
        run: its folder.
        target: one of its targets; None for the only one.
        agent: take the best that this agent found; None for the best of all.
        architecture: take this one, in the space's canonical form, instead.
        task_file: a YAML file with the ``class_path`` and ``init_args`` of a `TrainedTask`, which is code as a recipe
            is; None for the target's own.
        epochs: in place of the task's.
        seed: in place of the run's.
        trust: what the run's recipe may name.

    Raises:
        CatchmarkError: there is no such run, target, agent or architecture, nothing succeeded yet, or the target is
            nothing that can be trained.
    """
    if not (run / CONFIG).is_file():
        raise CatchmarkError(f"{run} is not a run folder: it has no {CONFIG}")
    check_links(run)
    study, resolved = load_recipe(run / CONFIG, trust=trust)
    recipe = parse_yaml(resolved)
    recipe = recipe["init_args"] if "class_path" in recipe else recipe
    found: tuple[Architecture, str | None, float | None]
    if isinstance(study, Experiment):
        target = target_of(study, target)
        found = _best(run, study, target, agent) if architecture is None else (_parse(study, architecture), None, None)
    elif architecture is None or task_file is None or target is not None:
        raise CatchmarkError(
            f"{run} is a run of a {type(study).__name__}, which has no targets; name what to train: "
            "--architecture STRING --task FILE.yaml"
        )
    else:
        found = _parse(study, architecture), None, None
    if task_file is not None:
        key, part, trust = f"--task {task_file}", read_recipe(task_file), RECIPE
    else:
        assert isinstance(study, Experiment) and target is not None
        key, part = f"targets.{target}", _training_of(study.targets[target], recipe["targets"][target], target)
    if epochs is not None:
        part = copy.deepcopy(part)
        part["init_args"] = {**(part.get("init_args") or {}), "epochs": epochs}
    task, part = build_task(part, key, study.space, trust)
    arch, finder, score = found
    seed = study.seed if seed is None else seed
    return Choice(study.space, recipe["space"], arch, task, part, seed, target, finder, score, study.name)


def settled(run: Path) -> Path:
    """The folder that a link such as ``latest`` leads to now; it may lead elsewhere later."""
    return run.parent / os.readlink(run) if run.is_symlink() else run


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
    journal = Journal(run / JOURNAL, writable=False)
    try:
        summary = study.summarise(journal)
    finally:
        journal.close()
    entries: Mapping[str, Any] = summary["targets"].get(target, {}).get("agents", {})
    found = best_of_target({name: entry for name, entry in entries.items() if agent in (None, name)})
    if found is None:
        whose = "of any agent" if agent is None else f"of the agent '{agent}'"
        raise CatchmarkError(
            f"{run}: no evaluation {whose} has succeeded on '{target}' yet; go on with the run, or name an "
            "--architecture"
        )
    finder, best = found
    return study.space.check(best["choices"]), finder, best["score"]


def _parse(study: Study, architecture: str) -> Architecture:
    try:
        return study.space.parse(architecture)
    except ValueError as error:
        raise CatchmarkError(f"--architecture: {explain(error)}") from error


def _training_of(task: Task, part: dict[str, Any], target: str) -> dict[str, Any]:
    """The description of the training that a target's score comes from, inside of what weighs it."""
    outer = task
    while not isinstance(task, TrainedTask):
        inner, inner_part = getattr(task, "task", None), (part.get("init_args") or {}).get("task")
        if not isinstance(inner, Task) or not isinstance(inner_part, dict):
            raise CatchmarkError(
                f"the target '{target}' is a {type(outer).__name__}, which trains no network; say how to train one: "
                "--task FILE.yaml, with the class_path and init_args of a TrainedTask"
            )
        task, part = inner, inner_part
    return part


def build_task(
    part: dict[str, Any], key: str, space: SearchSpace, trust: Trust = RECIPE
) -> tuple[TrainedTask, dict[str, Any]]:
    """The training that a part of a recipe describes; and the description with every default.

    Args:
        part: ``class_path`` and ``init_args``.
        key: where it stands, for messages.
        space: of the network.
        trust: what the description may name.

    Raises:
        CatchmarkError: the description is wrong, or is of nothing that trains a network.
    """
    make, resolved = build_part(part, Callable[[SearchSpace], Task], key, trust)
    try:
        task = make(space)
    except CatchmarkError:
        raise
    except Exception as error:
        raise CatchmarkError(f"{key}: {explain(error)}") from error
    if not isinstance(task, TrainedTask):
        raise CatchmarkError(f"{key}: {type(task).__name__} trains no network, a TrainedTask is needed")
    return task, resolved
