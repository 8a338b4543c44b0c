"""A search from Python in one call: any function of an architecture, with a journal, a report, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.errors import CatchmarkError
from search.evaluation import Architecture
from search.listeners.live_page import LivePage
from search.listeners.progress import FirstFailure, ProgressBar
from search.loop.search import Listener
from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.reports.pages import write_report
from search.runs.folders import JOURNAL
from search.runs.journal import Journal, Record
from search.spaces.base import SearchSpace
from search.studies.experiment import Experiment
from search.studies.run_study import run_study
from search.tasks.function import Answer, FunctionTask
from search.training.interruption import termination_as_interruption
from search.training.launch import Launch

TARGET, AGENT = "function", "agent"
"""What target and agent are called in the run's recipe."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        architecture: the best one that keeps every hard limit; None where none did.
        score: its score; None likewise.
        records: every evaluation, in order: ``record.architecture``, ``record.evaluation``.
        space: the space; ``space.format(architecture)`` is the architecture in words.
        report: the page about the search; None where no folder was named.
    """

    architecture: Architecture | None
    score: float | None
    records: list[Record]
    space: SearchSpace
    report: Path | None


def find(
    space: SearchSpace | str | Mapping[str, Any],
    evaluate: Callable[[Architecture], Answer],
    budget: int = 50,
    agent: str | Mapping[str, Any] = "PredictorAgent",
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    score_name: str = "score",
    objectives: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Found:
    """Search a space for the architecture that a function likes best.

    >>> import search
    >>> found = search.find("NASBench201", lambda architecture: architecture.count(3), budget=30, quiet=True)
    >>> found.score
    6.0

    Args:
        space: a search space, or as a recipe names one: ``"NASBench201"``, or ``{"class_path": ..., "init_args":
            ...}``. Of an object the class is noted, so it must be made without arguments, or be named in that way.
        evaluate: takes an architecture, a tuple of choice indices, and returns its score, higher is better; or a
            mapping of metrics, of which ``score`` is the score; or a `search.evaluation.Evaluation`. An error that it
            raises is a failed evaluation, and the search goes on; ten in a row end it.
        budget: evaluations.
        agent: the searcher, as a recipe names one: ``"RegularizedEvolution"``, or with arguments.
        seed: of the agent. With the same seed and the same answers the search is the same.
        folder: of the run: its journal, summary and report. One that holds a stopped search of the same kind is gone on
            with, and nothing is evaluated twice. None: nothing is kept.
        score_name: what the score is, with its unit, for the report.
        objectives: what is wanted of the score and of metrics: ``{"latency_ms": {"direction": "min", "limit": 5}}``.
        quiet: no progress bar.

    Raises:
        CatchmarkError: there is no such space or agent, or the folder holds another search.
        RunError: ten evaluations in a row failed.
    """
    recipe = {
        "name": AGENT if folder is None else Path(folder).absolute().name,
        "description": f"{budget} evaluations of a Python function.",
        "space": _named(space),
        "targets": {
            TARGET: {
                "class_path": "FunctionTask",
                "init_args": {"score_name": score_name, "objectives": dict(objectives or {}) or None},
            }
        },
        "agents": {AGENT: agent if isinstance(agent, str) else dict(agent)},
        "budget": budget,
        "seed": seed,
    }
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory()) if folder is None else folder).absolute()
        text = Path(stack.enter_context(TemporaryDirectory())) / "search.find.yaml"
        text.write_text(dump_yaml(recipe), encoding="utf-8")
        study, resolved = load_recipe(text)
        assert isinstance(study, Experiment)
        task = study.targets[TARGET]
        assert isinstance(task, FunctionTask)
        task.function = evaluate
        place.mkdir(parents=True, exist_ok=True)
        stack.enter_context(termination_as_interruption())

        def listen() -> list[Listener]:
            page = [] if folder is None else [LivePage(place, study)]
            return page + ([] if quiet else [FirstFailure(), ProgressBar(study.planned(), unit=study.unit)])

        summary, _ = run_study(study, resolved, place, Launch(), listen)
        report = None if folder is None else write_report(place, study, summary)
        journal = Journal(place / JOURNAL, writable=False)
        try:
            records = list(journal.records(f"{TARGET}/{AGENT}"))
        finally:
            journal.close()
    good = [record for record in records if record.can_be_best]
    best = max(good, key=lambda record: record.evaluation.score, default=None)
    if best is None:
        return Found(None, None, records, study.space, report)
    return Found(best.architecture, best.evaluation.score, records, study.space, report)


def _named(space: SearchSpace | str | Mapping[str, Any]) -> str | dict[str, Any]:
    """The space as a recipe names it."""
    if isinstance(space, str):
        return space
    if isinstance(space, Mapping):
        return dict(space)
    path = f"{type(space).__module__}.{type(space).__qualname__}"
    try:
        again = type(space)()
    except TypeError as error:
        again, reason = None, str(error)
    else:
        reason = "made without arguments it has other decisions"
    if again is None or again.decisions != space.decisions:
        raise CatchmarkError(
            f"space: {type(space).__name__} can't be noted as '{path}' alone ({reason}); give "
            f'{{"class_path": "{path}", "init_args": {{...}}}} in place of the object'
        )
    return path
