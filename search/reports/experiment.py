"""The report of a run: one HTML page for a reader who was not there, without any other file and without a network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.recipes.yaml_text import parse_yaml
from search.reports.architecture_svg import architecture_svg
from search.reports.best_so_far import best_line, best_so_far_svg
from search.reports.contexts import MOST_NETWORKS, ContextPictures
from search.reports.fronts import Fronts
from search.reports.gathering import gather
from search.reports.learning_curves import LearningCurves
from search.reports.metric_plots import MetricPlots
from search.reports.page import ABSENT, decimals_for, duration, number, render_page
from search.reports.provenance import provenance
from search.reports.svg import SERIES
from search.reports.verdict import listed, shown_values, verdict
from search.results.comparison import flatten
from search.results.search import best_of_target
from search.runs.journal import Journal, Record
from search.studies.experiment import Experiment
from search.studies.meta_training import PHASE
from search.studies.transfer import EXCHANGE, exchange_table

MOST_REASONS = 40
"""Reasons of failed evaluations that the report lists."""
MOST_METRICS = 8
"""Metrics of the networks found that the report compares agents by."""
_LONGEST_ARCHITECTURE = 200


def report_page(folder: Path, experiment: Experiment, journal: Journal, summary: dict[str, Any]) -> str:
    """The report of agents on tasks."""
    contexts, fronts, learning = ContextPictures(experiment), Fronts(experiment), LearningCurves(experiment)
    metrics = MetricPlots(experiment)
    gathered = gather(experiment, journal, [contexts, fronts, learning, metrics])
    planned = experiment.planned()
    finished = {search for search in planned if journal.progress(search)[0]}
    colors = {agent: k for k, agent in enumerate(experiment.agent_names)}
    made = provenance(folder, experiment, journal)
    targets = [
        _target(experiment, name, target, gathered.finals[name], colors, planned.keys() - finished)
        | {
            "front": fronts.section(name, colors),
            "learning": learning.drawing(name, colors),
            "metrics": metrics.section(name, target["score_name"]),
        }
        for name, target in summary["targets"].items()
    ]
    failures = sorted(gathered.failures.values(), key=lambda failure: -failure.count)
    return render_page(
        "report",
        **made,
        experiment=experiment,
        summary=summary,
        targets=targets,
        time_budget=_time_budget(summary.get("budget_seconds")),
        contexts=contexts.pictures(folder),
        exchange=exchange_table(summary[EXCHANGE]) if EXCHANGE in summary else None,
        most_networks=MOST_NETWORKS,
        searches=len(planned),
        searches_finished=len(finished),
        planned=sum(planned.values()),
        total=gathered.total,
        seconds=sum(journal.progress(search)[1] for search in planned),
        agents=_agents(experiment, list(colors), made["config"]),
        meta_trainings=min((entry["trials"] for entry in summary[PHASE].values()), default=0),
        meta_table=_meta_table(summary[PHASE], gathered.stages),
        failures=failures[:MOST_REASONS],
        failures_left_out=len(failures) - MOST_REASONS,
        failed=sum(failure.count for failure in failures),
        rows=[_row(experiment, *row) for row in gathered.rows],
    )


def _target(
    experiment: Experiment,
    name: str,
    target: Mapping[str, Any],
    finals: Mapping[str, np.ndarray],
    colors: Mapping[str, int],
    unfinished: Iterable[str],
) -> dict[str, Any]:
    agents, score_name = target["agents"], target["score_name"]
    possible = next((entry["best_possible"] for entry in agents.values() if "best_possible" in entry), None)
    curves = [
        best_line(agent, entry["curve_mean"], entry["curve_interval"], colors[agent])
        for agent, entry in agents.items()
        if entry["evaluations"]
    ]
    found = best_of_target(agents)
    best = None if found is None else found[1]
    waiting = [search.partition("/")[2] for search in unfinished if search.startswith(f"{name}/")]
    means = {agent: entry["best_score_mean"] for agent, entry in agents.items()}
    order = sorted(agents, key=lambda agent: math.inf if (mean := means[agent]) is None else -mean)
    return {
        "name": name,
        "score_name": score_name,
        "verdict": verdict(
            name,
            score_name,
            agents,
            finals,
            [agent for agent in colors if agent in waiting],
            target.get("budget_seconds"),
        ),
        "budget_seconds": target.get("budget_seconds"),
        "agents": [(agent, colors[agent] % len(SERIES), agents[agent]) for agent in order],
        "references": target.get("references", {}),
        "ranked": any("mean_rank" in entry for entry in agents.values()),
        "possible": possible,
        "decimals": decimals_for(shown_values(agents)),
        "curves": best_so_far_svg(curves, score_name, possible) if curves else "",
        "finders": listed(
            [
                agent
                for agent, entry in agents.items()
                if best and (entry["best"] or {}).get("choices") == best["choices"]
            ]
            or ["nobody"]
        ),
        "best": best,
        "on_the_way": _on_the_way({agent: agents[agent].get("on_the_way") or [] for agent in order}),
        "attributes": target.get("attributes", {}),
        "elsewhere": _elsewhere({agent: agents[agent].get("at_best") or {} for agent in order}),
        "drawing": ""
        if best is None
        else architecture_svg(experiment.space.diagram(tuple(best["choices"])), experiment.space.places()),
    }


def _time_budget(seconds: float | Mapping[str, float] | None) -> str:
    """For instance ``3 h 20 min``, or ``3 h 20 min (cifar10) and 8 h 0 min (cifar100)``; empty without a limit."""
    if isinstance(seconds, Mapping):
        return listed([f"{duration(each)} ({target})" for target, each in seconds.items()])
    return "" if seconds is None else duration(seconds)


def _on_the_way(standings: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any] | None:
    """A table of regret and of how often the best was found, after so many evaluations; None where it is not known."""
    places = sorted({each["evaluations"] for standing in standings.values() for each in standing})
    if not places:
        return None
    rows = []
    for agent, standing in standings.items():
        by_place = {each["evaluations"]: each for each in standing}
        columns = [[by_place.get(n, {}).get(name) for n in places] for name in ("regret", "found_best")]
        rows.append((agent, *columns))
    return {"evaluations": places, "rows": rows}


def _elsewhere(at_best: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """A table of what the networks found are worth otherwise: a row an agent, two columns a metric."""
    metrics = list(dict.fromkeys(name for found in at_best.values() for name in found))
    shown = metrics[:MOST_METRICS]
    decimals = {
        name: decimals_for(
            value
            for found in at_best.values()
            if name in found
            for value in (found[name]["mean"], *(found[name]["interval"] or ()))
        )
        for name in shown
    }
    rows = []
    for agent, found in at_best.items():
        cells = []
        for name in shown:
            entry = found.get(name, {"mean": None, "interval": None})
            ends = [number(end, decimals[name]) for end in entry["interval"] or ()]
            cells.append((number(entry["mean"], decimals[name]), " to ".join(ends)))
        rows.append((agent, cells))
    return {"metrics": shown, "left_out": len(metrics) - len(shown), "rows": rows}


def _agents(experiment: Experiment, names: Sequence[str], config: str) -> list[dict[str, Any]]:
    """What each agent is: its class in one line, and how it differs from others of the same class."""
    classes = {name: type(experiment.agent(name, trials=1)) for name in names}
    recipe = (parse_yaml(config) or {}).get("agents", {})
    settings = {name: flatten(recipe.get(name, {})) for name in names}
    meta_trained = {phase.agent for phase in experiment.phases}
    described = []
    for name, found in classes.items():
        twins = [settings[other] for other, kind in classes.items() if kind is found]
        own = {
            key.removeprefix("init_args."): value
            for key, value in settings[name].items()
            if any(twin.get(key) != value for twin in twins)
        }
        line = (found.__doc__ or "").strip().partition("\n")[0]
        described.append(
            {"name": name, "class": found.__name__, "line": line, "own": own, "meta_trained": name in meta_trained}
        )
    return described


def _meta_table(summary: Mapping[str, Any], stages: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    cells = []
    for stage, by_agent in stages.items():
        numbers = []
        for agent in summary:
            scores = np.array(by_agent.get(agent, []), dtype=np.float64)
            good = scores[~np.isnan(scores)]
            numbers.append((float(good.mean()), float(good.max())) if len(good) else (None, None))
        evaluations = max(len(scores) for scores in by_agent.values())
        cells.append((stage, evaluations, numbers))
    values = [value for _, _, numbers in cells for pair in numbers for value in pair]
    return {"agents": list(summary), "rows": cells, "decimals": decimals_for(values)}


def _row(experiment: Experiment, trial: int, _: int, count: int, search: str, record: Record) -> dict[str, Any]:
    evaluation = record.evaluation
    text = experiment.space.format(record.architecture)
    metrics = [f"{key} {value:.4g}" for key, value in evaluation.metrics.items()]
    asked = "".join(f", {key} {value:g}" for key, value in record.proposal.fidelity.items())
    return {
        "search": search,
        "task": record.stage,
        "count": count,
        "trial": trial + 1,
        "architecture": text if len(text) <= _LONGEST_ARCHITECTURE else f"{text[:_LONGEST_ARCHITECTURE]}…",
        "score": ABSENT if math.isnan(evaluation.score) else f"{evaluation.score:.6g}",
        "metrics": ", ".join(metrics[:4]) + (" …" if len(metrics) > 4 else ""),
        "cost": f"{evaluation.cost_seconds:.3g}",
        "status": ("over a limit" if evaluation.violation > 0 else evaluation.status) + asked,
        "reason": evaluation.reason[:120],
    }
