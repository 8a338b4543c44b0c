"""What a run found, in numbers: the content of ``summary.json``.

Everything here is computed from the journal, so a resumed run and one that was never stopped give the same summary;
only the entries called ``seconds`` depend on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from search.loop.time_budget import TimeBudget, within
from search.runs.journal import Record
from search.spaces.base import SearchSpace
from search.statistics.clusters import clustered_mean_interval, clustered_share_interval, shares_luck

CHECKPOINTS = (5, 10, 20, 50)
"""Evaluations after which a summary says how far a search has come."""


def best_so_far(records: Iterable[Record], trials: int, seconds: float | None = None) -> np.ndarray:
    """The best score after each evaluation.

    Args:
        records: all evaluations of the search so far.
        trials: how many searches ran together.
        seconds: a trial's limit of time, if it has one (`within`).

    Returns:
        Float64 ``[trials, evaluations]``, NaN while no full evaluation has succeeded within the task's hard limits.
        With a limit of time, ``evaluations`` is the most that count of any trial; where fewer count, what the trial has
        found stays.
    """
    scores: list[list[float]] = [[] for _ in range(trials)]
    time_budget, counted = TimeBudget(seconds), [0] * trials
    for record in records:
        counts = time_budget.counts(record)
        scores[record.trial].append(record.evaluation.score if counts and record.can_be_best else math.nan)
        counted[record.trial] += counts
    length = min(min(len(row) for row in scores), max(counted))
    # fmax ignores NaN: a failed evaluation leaves the best as it was.
    return np.fmax.accumulate(np.array([row[:length] for row in scores], dtype=np.float64).reshape(trials, length), 1)


def summarise_search(
    records: list[Record],
    trials: int,
    space: SearchSpace,
    all_scores: np.ndarray | None,
    seconds: float,
    budget_seconds: float | None = None,
    meta_trainings: int | None = None,
) -> dict[str, Any]:
    """What one agent found on one target.

    Args:
        records: all evaluations of the search so far.
        trials: how many searches ran together.
        space: for the names of architectures.
        all_scores: float64 ``[size]``, the score of every architecture of the space, where known.
        seconds: time the search took.
        budget_seconds: a trial's limit of time, if it has one: what it evaluated later is in no number here (`within`).
        meta_trainings: that the trials start from in turn, if they do; intervals are then over these.

    Returns:
        Plain numbers, strings and lists. ``meta_trainings`` where trials share them. ``evaluations`` are those of a
        trial, with a limit of time the most of any trial; their mean is then there too. Nothing that misses a hard
        limit is the best of anything; how many did is said as ``infeasible``, where some did. Nor is what asked for a
        fidelity, which is no full evaluation; how many did is said as ``partial``, where some did. With ``all_scores``
        also how often the best and one of the best three were found, the mean rank (1 = best) of what was found and its
        regret, what it lacks to the best score there is: in the end, and ``on_the_way`` after 5, 10, 20 and 50
        evaluations.
    """
    curve = best_so_far(records, trials, budget_seconds)
    records = within(records, budget_seconds)
    final = curve[:, -1] if curve.shape[1] else np.full(trials, np.nan)
    succeeded = final[~np.isnan(final)]
    good = [record for record in records if record.can_be_best]
    infeasible = sum(record.evaluation.violation > 0 for record in records)
    summary: dict[str, Any] = {
        "trials": trials,
        "evaluations": curve.shape[1],
        "failed": sum(record.evaluation.status == "failed" for record in records),
        "seconds": seconds,
        "cost_seconds": sum(record.evaluation.cost_seconds for record in records),
        "best_score_mean": _number(succeeded.mean()) if len(succeeded) else None,
        "best_score_std": _number(succeeded.std(ddof=1)) if len(succeeded) > 1 else None,
        "best_score_interval": clustered_mean_interval(final, meta_trainings),
        "best": None,
        "curve_mean": [_number(value) for value in _column_means(curve)],
        "curve_interval": [clustered_mean_interval(column, meta_trainings) for column in curve.T],
        "at_best": at_best(good, trials, meta_trainings),
    }
    if shares_luck(trials, meta_trainings):
        summary["meta_trainings"] = meta_trainings
    if infeasible:
        summary["infeasible"] = infeasible
    if partial := sum(not record.full for record in records):
        summary["partial"] = partial
    if budget_seconds is not None:
        summary["evaluations_mean"] = len(records) / trials
    if good:
        best = max(good, key=lambda record: record.evaluation.score)
        summary["best"] = {
            "architecture": space.format(best.architecture),
            "choices": list(best.architecture),
            "score": best.evaluation.score,
            "metrics": {name: _number(value) for name, value in best.evaluation.metrics.items()},
            # Which evaluation of its trial it was, from 0: a step of a batch has several.
            "evaluation": sum(each.trial == best.trial for each in records[: records.index(best)]),
            "trial": best.trial,
        }
    if all_scores is not None and len(succeeded):
        ranked = np.sort(all_scores[~np.isnan(all_scores)])[::-1]  # not empty: something succeeded
        summary |= _standing(final, ranked, meta_trainings)
        summary["best_possible"] = float(ranked[0])
        places = sorted({each for each in (*CHECKPOINTS, curve.shape[1]) if each <= curve.shape[1]})
        summary["on_the_way"] = [
            {"evaluations": n, **_standing(curve[:, n - 1], ranked, meta_trainings)} for n in places
        ]
    return summary


def best_of_target(agents: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]] | None:
    """Which agent found the best architecture of a target, of equal ones the first, and that ``best``.

    Args:
        agents: by name what `summarise_search` says of them.

    Returns:
        None where nothing has succeeded.
    """
    found = [(agent, about["best"]) for agent, about in agents.items() if about["best"] is not None]
    return max(found, key=lambda each: each[1]["score"], default=None)


def ranks_among(best: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Ranks of the trials' best scores ``[trials]`` among all scores of the space, highest first; NaN stays NaN."""
    return np.where(np.isnan(best), np.nan, 1.0 + np.searchsorted(-ranked, -best, side="left"))


def _standing(best: np.ndarray, ranked: np.ndarray, meta_trainings: int | None) -> dict[str, Any]:
    """How far the trials have come: their best scores ``[trials]`` beside all scores of the space, highest first.

    A trial in which nothing has succeeded found nothing; it has no rank and no regret.
    """
    standing: dict[str, Any] = {}
    for name, place in (("found_best", 1), ("found_top3", 3)):
        hits = best >= ranked[min(place, len(ranked)) - 1]
        standing[name] = int(hits.sum()) / len(best)
        standing[f"{name}_interval"] = clustered_share_interval(hits, meta_trainings)
    lost = np.isnan(best)
    every = {
        "mean_rank": (ranks_among(best, ranked), (1.0, 1.0 + len(ranked))),
        "regret": (ranked[0] - best, (0.0, math.inf)),
    }
    for name, (values, possible) in every.items():
        standing[name] = float(values[~lost].mean()) if not lost.all() else None
        standing[f"{name}_interval"] = clustered_mean_interval(values, meta_trainings, possible)
    return standing


def at_best(records: Sequence[Record], trials: int = 0, meta_trainings: int | None = None) -> dict[str, dict[str, Any]]:
    """What the best network of each trial, the first of equals, is worth otherwise.

    Args:
        records: evaluations that succeeded within the task's hard limits, and count.
        trials: how many searches ran together, where trials share meta-trainings.
        meta_trainings: as for `summarise_search`.

    Returns:
        By metric the ``mean``, ``std`` and 95% ``interval`` of the mean over those trials whose best network has it;
        std and interval are None where that is a single one.
    """
    best: dict[int, Record] = {}
    for record in records:
        if record.trial not in best or record.evaluation.score > best[record.trial].evaluation.score:
            best[record.trial] = record
    names = dict.fromkeys(
        name for record in best.values() for name, value in record.evaluation.metrics.items() if math.isfinite(value)
    )
    length = max([trials, *(1 + trial for trial in best)])
    described = {}
    for name in names:
        values = np.full(length, np.nan)
        for trial, record in best.items():
            value = record.evaluation.metrics.get(name, math.nan)
            values[trial] = value if math.isfinite(value) else math.nan
        described[name] = _described(values, meta_trainings)
    return described


def _described(values: np.ndarray, meta_trainings: int | None) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    return {
        "mean": float(known.mean()),
        "std": float(known.std(ddof=1)) if len(known) > 1 else None,
        "interval": clustered_mean_interval(values, meta_trainings),
    }


def _column_means(curve: np.ndarray) -> list[float]:
    return [float(column[~np.isnan(column)].mean()) if (~np.isnan(column)).any() else math.nan for column in curve.T]


def _number(value: float) -> float | None:
    """A float that JSON can hold."""
    return float(value) if math.isfinite(value) else None


def for_json(content: Any) -> Any:
    """The same with None in place of infinity and NaN, which JSON has no words for."""
    if isinstance(content, dict):
        return {key: for_json(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [for_json(value) for value in content]
    return _number(content) if isinstance(content, float) else content


def without_seconds(summary: Any) -> Any:
    """The same summary less every entry that measures time: what two equal runs agree on."""
    if isinstance(summary, dict):
        return {key: without_seconds(value) for key, value in summary.items() if not key.endswith("seconds")}
    if isinstance(summary, list):
        return [without_seconds(value) for value in summary]
    return summary
