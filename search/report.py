"""The report of a run: one HTML page for a reader who was not there, without any other file and without a network."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from search.compare import flatten
from search.compare import shown_path as shown_folder
from search.experiment import Experiment
from search.journal import Journal, Record
from search.page import ABSENT, decimals_for, number, p_text, render_page, share
from search.plots import SERIES, Curve, architecture_svg, curves_svg
from search.significance import FEWEST_TRIALS, SIGNIFICANT, holm, rank_test
from search.summary import best_so_far

MOST_ROWS = 2000
"""Evaluations that the report lists one by one."""
MOST_REASONS = 40
_LONGEST_ARCHITECTURE = 200
_META = "meta_training"


def write_report(folder: Path, experiment: Experiment) -> Path:
    """Write ``report.html`` of a run, finished or not, from its journal.

    Args:
        folder: the run's folder.
        experiment: what the run's recipe describes.

    Returns:
        The page's path.

    Raises:
        CatchmarkError: the folder has no journal, or a damaged one.
    """
    folder = Path(folder)
    journal = Journal(folder / "journal.sqlite", writable=False)
    try:
        page = render_page("report", **_content(folder, experiment, journal))
    finally:
        journal.close()
    path, partial = folder / "report.html", folder / "report.partial"
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


# ---- what the journal holds ----------------------------------------------------------------------------------------


@dataclass
class _Failure:
    reason: str
    count: int = 0
    searches: dict[str, int] = field(default_factory=dict)


@dataclass
class _Gathered:
    """One walk over the journal.

    Attributes:
        finals: by target and agent, each trial's best score: float64 ``[trials]``, NaN where none succeeded.
        stages: by meta-training task and agent, every score.
        failures: by reason less its numbers.
        rows: (trial, place of the search, evaluation, search, record), those that the page lists.
        total: evaluations in the journal.
    """

    finals: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    stages: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, _Failure] = field(default_factory=dict)
    rows: list[tuple[int, int, int, str, Record]] = field(default_factory=list)
    total: int = 0


def _gather(experiment: Experiment, journal: Journal) -> _Gathered:
    gathered = _Gathered()
    begun = set(journal.searches())
    best_rows = []
    for place, search in enumerate(experiment.planned()):
        if search not in begun:
            continue
        phase, _, agent = search.partition("/")
        records = list(journal.records(search))
        gathered.total += len(records)
        counts: dict[int, int] = {}
        rows = []
        for record in records:
            counts[record.trial] = counts.get(record.trial, 0) + 1
            rows.append((record.trial, place, counts[record.trial], search, record))
            if record.evaluation.status == "failed":
                key = re.sub(r"\d+(\.\d+)?", "#", record.evaluation.reason)
                failure = gathered.failures.setdefault(key, _Failure(record.evaluation.reason))
                failure.count += 1
                failure.searches[search] = failure.searches.get(search, 0) + 1
            if phase == _META:
                stage = gathered.stages.setdefault(record.stage, {})
                stage.setdefault(agent, []).append(record.evaluation.score)
        if phase != _META:
            curve = best_so_far(records, experiment.trials)
            final = curve[:, -1] if curve.shape[1] else np.full(experiment.trials, math.nan)
            gathered.finals.setdefault(phase, {})[agent] = final
            if good := [row for row in rows if row[-1].evaluation.status == "ok"]:
                best_rows.append(max(good, key=lambda row: row[-1].evaluation.score))
        gathered.rows += sorted(rows, key=lambda row: row[:3])[:MOST_ROWS]
    # The best of every search first, then whole trials: what a reader looks for is there.
    first = {row[:3]: row for row in best_rows}
    for row in sorted(gathered.rows, key=lambda row: row[:3]):
        if len(first) >= MOST_ROWS:
            break
        first[row[:3]] = row
    gathered.rows = sorted(first.values(), key=lambda row: (row[1], row[0], row[2]))
    return gathered


# ---- what it means -------------------------------------------------------------------------------------------------


def verdict(
    target: str,
    score_name: str,
    agents: Mapping[str, Mapping[str, Any]],
    finals: Mapping[str, np.ndarray],
    unfinished: Sequence[str] = (),
) -> str:
    """What was found on a target, in plain words that the numbers bear out.

    Args:
        target: its name.
        score_name: what the score is.
        agents: what `search.summary.summarise_search` says, by agent.
        finals: each trial's best score by agent: float64 ``[trials]``, NaN where none succeeded.
        unfinished: agents that have evaluations left to do.
    """
    scores = {agent: finals[agent][~np.isnan(finals[agent])] for agent in agents}
    ranked = sorted((agent for agent in agents if len(scores[agent])), key=lambda agent: -scores[agent].mean())
    if not ranked:
        return f"On {target}, no evaluation has succeeded so far: there is nothing to compare."
    decimals = decimals_for(_shown_values(agents))
    unit = "%" if score_name.endswith("(%)") else ""
    trials = max(len(finals[agent]) for agent in agents)
    evaluations = sorted({agents[agent]["evaluations"] for agent in ranked})
    spent = f"{evaluations[0]:,}" if len(evaluations) == 1 else f"{evaluations[0]:,} to {evaluations[-1]:,}"
    found: list[str] = []
    for agent in ranked:
        interval, n = agents[agent]["best_score_interval"], len(scores[agent])
        words = f"{agent} {'' if found else 'found '}{number(scores[agent].mean(), decimals)}{'' if found else unit}"
        details = [] if found or interval is None else [f"mean of {n} trials"]
        if n < trials:
            details = [f"in {n} of {trials} trials, the others found nothing"]
        if interval is not None:
            low, high = (number(end, decimals) for end in interval)
            details.append(f"{'' if found else '95% interval '}{low} to {high}")
        found.append(f"{words} ({', '.join(details)})" if details else words)
    plural = "evaluation" if evaluations == [1] else "evaluations"
    each = " a trial" if trials > 1 else ""
    sentences = [f"After {spent} {plural}{each} on {target}, {_listed(found)}."]
    if nothing := [agent for agent in agents if agent not in ranked]:
        sentences.append(f"{_listed(nothing)} found nothing: every evaluation failed.")
    if unfinished:
        sentences.append(
            f"{_listed(list(unfinished))} {'has' if len(unfinished) == 1 else 'have'} not finished here, so the agents "
            "can't be compared yet."
        )
    elif len(ranked) > 1:
        sentences.append(_comparison(ranked, scores, agents, trials))
    elif trials == 1:
        sentences.append("With a single trial no interval can be given: another seed may find more, or less.")
    if (best := agents[ranked[0]].get("best_possible")) is not None:
        shares = {agent: agents[agent]["found_best"] for agent in ranked}
        most = max(shares.values())
        finders = _listed([agent for agent in ranked if shares[agent] == most])
        if most == 0:
            outcome = "no trial found it"
        elif trials == 1:
            outcome = f"{finders} found it"
        else:
            often = "" if len(ranked) == 1 else " most often,"
            outcome = f"{finders} found it{often} in {share(most)} of the trials"
        sentences.append(f"The best architecture of the whole space has {number(best, decimals)}{unit}: {outcome}.")
    return " ".join(sentences)


def _comparison(
    ranked: Sequence[str], scores: Mapping[str, np.ndarray], agents: Mapping[str, Mapping[str, Any]], trials: int
) -> str:
    """Whether the first of ``ranked`` is shown to be ahead of the others."""
    leader, others = ranked[0], list(ranked[1:])
    fewest = min(len(scores[agent]) for agent in ranked)
    if fewest == 1 and trials > 1:
        return "An agent of which a single trial found anything can't be compared with others."
    if fewest == 1:
        return (
            "With a single trial no interval can be given, and another seed may turn the order round: this does not "
            "show that one agent is better than another."
        )
    if fewest < FEWEST_TRIALS:
        ends = {agent: agents[agent]["best_score_interval"] for agent in ranked}
        apart = [agent for agent in others if ends[agent][1] < ends[leader][0]]
        near = [agent for agent in others if agent not in apart]
        words = []
        if near:
            overlap = "the intervals overlap" if len(others) == 1 else f"its interval overlaps that of {_listed(near)}"
            words.append(f"{overlap[0].upper()}{overlap[1:]}, so {fewest} trials don't show a difference.")
            if len(others) > 1:
                words[-1] = f"{leader} has the highest mean, but {overlap}: {fewest} trials show no difference there."
        if apart:
            words.append(
                f"The interval of {leader} lies above that of {_listed(apart)}, which points to a difference; "
                f"{fewest} trials are too few for a rank test to confirm it."
            )
        return " ".join(words)
    # The leader was picked after the fact, so the correction counts every pair, not only the leader's.
    pairs = [(a, b) for k, a in enumerate(ranked) for b in ranked[k + 1 :]]
    p_values = dict(zip(pairs, holm([rank_test(scores[a], scores[b]) for a, b in pairs]), strict=True))
    against = {agent: p_values[leader, agent] for agent in others}
    behind = [agent for agent, p in against.items() if p is not None and p < SIGNIFICANT]
    level = [agent for agent in others if agent not in behind]
    test = "Mann-Whitney U test" if len(pairs) == 1 else f"Mann-Whitney U tests, corrected for {len(pairs)} comparisons"
    words = []
    if behind:
        largest = p_text(max(p for agent in behind if (p := against[agent]) is not None))
        words.append(f"{leader} is ahead of {_listed(behind)} ({test}: p {_equals(largest)}).")
    if level:
        smallest = p_text(min(p for agent in level if (p := against[agent]) is not None))
        it = leader if not behind else "it"
        source = f"{test}: " if not behind else ""
        words.append(
            f"Between {it} and {_listed(level)} the trials don't show a difference ({source}p {_equals(smallest)}"
            f"{' or more' if len(level) > 1 else ''})."
        )
    return " ".join(words)


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def _listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _shown_values(agents: Mapping[str, Mapping[str, Any]]) -> Iterable[float | None]:
    for entry in agents.values():
        yield entry["best_score_mean"]
        yield from entry["best_score_interval"] or ()


# ---- what the template shows ---------------------------------------------------------------------------------------


def _content(folder: Path, experiment: Experiment, journal: Journal) -> dict[str, Any]:
    summary, gathered = experiment.summarise(journal), _gather(experiment, journal)
    planned = experiment.planned()
    finished = {search for search in planned if journal.progress(search)[0]}
    colors = {agent: k for k, agent in enumerate(experiment.agent_names)}
    config_path = folder / "config.yaml"
    config = config_path.read_text(encoding="utf-8") if config_path.is_file() else ""
    shown = shown_folder(folder)
    recipe = shlex.quote(f"{shown}/config.yaml")
    targets = [
        _target(experiment, name, target, gathered.finals[name], colors, planned.keys() - finished)
        for name, target in summary["targets"].items()
    ]
    failures = sorted(gathered.failures.values(), key=lambda failure: -failure.count)
    return {
        "title": experiment.name or folder.resolve().name,
        "description": " ".join(experiment.description.split()),
        "experiment": experiment,
        "summary": summary,
        "targets": targets,
        "searches": len(planned),
        "searches_finished": len(finished),
        "planned": sum(planned.values()),
        "total": gathered.total,
        "seconds": sum(journal.progress(search)[1] for search in planned),
        "agents": _agents(experiment, list(colors), config),
        # Where trials share meta-trainings, an interval over trials leaves out part of their luck.
        "meta_trainings": min((entry["trials"] for entry in summary[_META].values()), default=0),
        "meta_table": _meta_table(summary[_META], gathered.stages),
        "failures": failures[:MOST_REASONS],
        "failures_left_out": len(failures) - MOST_REASONS,
        "failed": sum(failure.count for failure in failures),
        "rows": [_row(experiment, *row) for row in gathered.rows],
        "config": config,
        "environment": json.loads(journal.about("environment") or "{}"),
        "command": f"catchmark run {recipe}",
        "resume": f"catchmark run --resume {shlex.quote(shown)}",
    }


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
        Curve(agent, entry["curve_mean"], entry["curve_interval"], colors[agent], colors[agent] // len(SERIES))
        for agent, entry in agents.items()
        if entry["evaluations"]
    ]
    best_agent = max(
        (agent for agent, entry in agents.items() if entry["best"] is not None),
        key=lambda agent: agents[agent]["best"]["score"],
        default=None,
    )
    best = None if best_agent is None else agents[best_agent]["best"]
    waiting = [search.partition("/")[2] for search in unfinished if search.startswith(f"{name}/")]
    means = {agent: entry["best_score_mean"] for agent, entry in agents.items()}
    order = sorted(agents, key=lambda agent: math.inf if (mean := means[agent]) is None else -mean)
    return {
        "name": name,
        "score_name": score_name,
        "verdict": verdict(name, score_name, agents, finals, [agent for agent in colors if agent in waiting]),
        "agents": [(agent, colors[agent] % len(SERIES), agents[agent]) for agent in order],
        "ranked": any("mean_rank" in entry for entry in agents.values()),
        "possible": possible,
        "decimals": decimals_for(_shown_values(agents)),
        "curves": curves_svg(curves, score_name, possible) if curves else "",
        "finders": _listed(
            [
                agent
                for agent, entry in agents.items()
                if best and (entry["best"] or {}).get("choices") == best["choices"]
            ]
            or ["nobody"]
        ),
        "best": best,
        "drawing": "" if best is None else architecture_svg(experiment.space.diagram(tuple(best["choices"]))),
    }


def _agents(experiment: Experiment, names: Sequence[str], config: str) -> list[dict[str, Any]]:
    """What each agent is: its class in one line, and how it differs from others of the same class."""
    classes = {name: type(experiment.agent(name, trials=1)) for name in names}
    recipe = (yaml.safe_load(config) or {}).get("agents", {})
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
    return {
        "search": search,
        "task": record.stage,
        "count": count,
        "trial": trial + 1,
        "architecture": text if len(text) <= _LONGEST_ARCHITECTURE else f"{text[:_LONGEST_ARCHITECTURE]}…",
        "score": ABSENT if math.isnan(evaluation.score) else f"{evaluation.score:.6g}",
        "metrics": ", ".join(metrics[:4]) + (" …" if len(metrics) > 4 else ""),
        "cost": f"{evaluation.cost_seconds:.3g}",
        "status": evaluation.status,
        "reason": evaluation.reason[:120],
    }
