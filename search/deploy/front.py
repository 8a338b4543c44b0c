"""Every network on a run's Pareto front, trained in full one after another, and a page with a line for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.deploy.choice import Request, study_of, target_of
from search.deploy.network_folder import read_about
from search.deploy.trained_folder import help_to_train, train_run
from search.errors import CatchmarkError
from search.loop.time_budget import within
from search.results.fronts import front_records
from search.runs.folders import JOURNAL
from search.runs.journal import Journal, Record
from search.runs.json_files import write_json, write_whole
from search.studies.experiment import Experiment
from search.training.launch import Launch

FRONT = "front"
"""The folder of a run that holds trained fronts, a folder for each target."""
PAGE, TABLE = "front.html", "front.json"


@dataclass(frozen=True)
class FrontPoint:
    """A network on the front.

    Attributes:
        architecture: in the space's canonical form.
        agent: who found it first.
        score: what it scored in the search.
        objectives: what it was worth there, by name.
    """

    architecture: str
    agent: str
    score: float
    objectives: dict[str, float]

    @property
    def folder(self) -> str:
        """The name of its folder: the same whatever else joins the front while the run goes on."""
        return f"network-{hashlib.sha256(self.architecture.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Front:
    """What is to be trained.

    Attributes:
        target: of the run.
        directions: ``max`` or ``min`` of each objective, by name.
        points: from the best to the worst value of the first objective.
    """

    target: str
    directions: dict[str, str]
    points: list[FrontPoint]


def read_front(request: Request) -> Front:
    """The Pareto front of everything that a run's agents evaluated on a target, within its limits.

    Args:
        request: names the run, which may still be going on, and the target.

    Raises:
        CatchmarkError: there is no such run or target, the target has not several objectives, or nothing is on the
            front yet.
    """
    run, study = request.run, study_of(request)
    if not isinstance(study, Experiment):
        raise CatchmarkError(f"{run} is a run of a {type(study).__name__}, which has no front")
    target = target_of(study, request.target)
    task = study.targets[target]
    finder: dict[int, str] = {}
    records: list[Record] = []
    if len(task.objectives) < 2:
        raise CatchmarkError(f"--front: the target '{target}' has no objectives to choose between; train without it")
    with closing(Journal(run / JOURNAL, writable=False)) as journal:
        for agent in study.agent_names:
            found = within(journal.records(f"{target}/{agent}"), study.seconds(target))
            finder |= {id(record): agent for record in found}
            records += found
    front = front_records(records, task)
    if not front:
        raise CatchmarkError(f"{run}: nothing that was evaluated on '{target}' is on a front yet; go on with the run")
    points = [
        FrontPoint(
            study.space.format(record.architecture),
            finder[id(record)],
            record.evaluation.score,
            {name: task.value(record.evaluation, name) for name in task.objectives},
        )
        for record in front
    ]
    return Front(target, {name: each.direction for name, each in task.objectives.items()}, points)


def train_front(
    request: Request,
    front: Front,
    out: Path | None = None,
    quiet: bool = False,
    launch: Launch = Launch(),  # noqa: B008 - frozen
) -> Path:
    """Train one network after another; what was trained before is left as it is.

    Args:
        request: how to train, and of which run.
        front: what to train.
        out: where the networks' folders go; None for ``RUN/front/TARGET``.
        quiet: no progress bar.
        launch: as for `train_run`.

    Returns:
        The page.

    Raises:
        CatchmarkError: as `train_run` does.
    """
    for each, folder in _trainings(request, front, out):
        train_run(each, folder, quiet, launch)
    return _write_page(_parent(request, front, out), front)


def help_to_train_front(request: Request, front: Front, out: Path | None, launch: Launch) -> int:
    """Another rank's part of `train_front`, with the same arguments; the exit code of rank 0."""
    codes = (help_to_train(each, folder, launch) for each, folder in _trainings(request, front, out))
    return next((code for code in codes if code), 0)


def _trainings(request: Request, front: Front, out: Path | None) -> Iterator[tuple[Request, Path]]:
    """What to train of each network, and into which folder."""
    for point in front.points:
        each = replace(request, target=front.target, agent=None, architecture=point.architecture)
        yield each, _parent(request, front, out) / point.folder


def _parent(request: Request, front: Front, out: Path | None) -> Path:
    return out or request.run / FRONT / front.target


def _write_page(parent: Path, front: Front) -> Path:
    """``front.html`` and the same numbers in ``front.json``."""
    from search.reports.page import decimals_for, render_page

    about = [read_about(parent / point.folder) for point in front.points]
    score_name = about[0]["score_name"]
    rows = [
        {**vars(point), "folder": point.folder, "metrics": each["metrics"], "full": each["metrics"].get(each["score"])}
        for point, each in zip(front.points, about, strict=True)
    ]
    content: dict[str, Any] = {"target": front.target, "objectives": front.directions, "score_name": score_name}
    write_json(parent / TABLE, content | {"networks": rows})
    decimals = {name: decimals_for(point.objectives[name] for point in front.points) for name in front.directions}
    page = render_page(
        "front",
        "front_trained.html.jinja",
        title=f"{front.target}: the networks of the front, trained in full",
        rows=rows,
        decimals=decimals,
        full_decimals=decimals_for(row["full"] for row in rows),
        **content,
    )
    write_whole(parent / PAGE, page, "the same 'catchmark train' again")
    return parent / PAGE
