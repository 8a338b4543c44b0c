"""The report of a study of supernets: one HTML page, made of the journal and its summary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from search.reports.architecture_svg import architecture_svg
from search.reports.line_chart import Line
from search.reports.page import ABSENT, duration, number, render_page
from search.reports.provenance import provenance
from search.reports.supernet_plots import Ranking, courses_svg, rankings_svg
from search.reports.supernet_verdict import ends_in_words, landmark_pairs, short, verdict, worth_decimals
from search.reports.svg import SERIES
from search.reports.verdict import listed
from search.runs.journal import Journal, Record
from search.studies.supernet_job import ADDED, FOUND, MEASURED, STAND_ALONE

if TYPE_CHECKING:
    from search.studies.supernet_study import SupernetStudy

_CORRELATIONS = (
    "s_kdt",
    "s_kdt_by_loss",
    "kendall_tau",
    "kendall_tau_by_loss",
    "kendall_tau_with_process",
    "kendall_tau_of_process",
)
"""What the table shows of a method, in the order of its columns; of a ranking without a supernet what there is."""


def report_page(folder: Path, study: SupernetStudy, journal: Journal, summary: dict[str, Any]) -> str:
    """The report of a study of supernets.

    Args:
        folder: of the run.
        study: what its recipe describes.
        journal: what was evaluated so far.
        summary: `search.results.supernet_study.summarise_study` of that journal.

    Returns:
        One HTML page that needs no other file.
    """
    records = {name: list(journal.records(name)) for name in journal.searches()}
    alone = records.get(STAND_ALONE, [])
    methods = summary["methods"]
    colors = {name: k for k, name in enumerate(methods)}
    rankings = [
        found
        for name in methods
        if (
            found := _ranking(study, name, records.get(name, []), alone, colors[name], methods[name]["s_kdt"]["trials"])
        )
    ]
    known = study.truth.all_scores()
    epochs = [study.settings_of(name).epochs for name in methods]
    return render_page(
        "study",
        "supernets.html.jinja",
        **provenance(folder, study, journal),
        study=study,
        summary=summary,
        paragraphs=verdict(summary, landmark_pairs(study), study.measured),
        trainings=sum(method["trials"] for method in methods.values()),
        planned=study.trials * len(methods),
        seconds=sum(journal.progress(name)[1] for name in methods),
        rows=_rows(summary, colors),
        epochs=" to ".join(f"{each:,}" for each in dict.fromkeys((min(epochs), max(epochs)))),
        shared_warmups=study.share_warmups and bool(landmark_pairs(study)),
        known=None if known is None else int((~known.isnan()).sum()),
        curves=_curves(study, summary, colors),
        scatter=rankings_svg([ranking for ranking, _ in rankings], study.truth.score_name) if rankings else "",
        scatter_trials=sorted({trial + 1 for _, trial in rankings}),
        best=_best(study, summary),
        explained=[_explained(study, name) for name in methods],
    )


def _curves(study: SupernetStudy, summary: Mapping[str, Any], colors: Mapping[str, int]) -> str:
    """How the rankings grew, as an ``<svg>`` element; empty where nothing was measured yet."""
    courses = [
        Line(
            name,
            [entry["epoch"] for entry in method["rounds"]],
            [entry["s_kdt"]["mean"] for entry in method["rounds"]],
            [entry["s_kdt"]["interval"] for entry in method["rounds"]],
            colors[name],
        )
        for name, method in summary["methods"].items()
        if method["rounds"]
    ]
    means = {name: entry["s_kdt"]["mean"] for name, entry in summary["without_supernet"].items()}
    references = {name: mean for name, mean in means.items() if mean is not None}
    begins = {method.landmarks.warmup for method in study.methods.values() if method.landmarks is not None}
    return courses_svg(courses, references, begin=begins.pop() if len(begins) == 1 else None) if courses else ""


# ---- in words ------------------------------------------------------------------------------------------------------


def _rows(summary: Mapping[str, Any], colors: Mapping[str, int]) -> list[dict[str, Any]]:
    """The table: methods by their S-KdT, then the rankings that need no supernet."""

    def by_mean(entries: Mapping[str, Any]) -> list[str]:
        means = {name: entry["s_kdt"]["mean"] for name, entry in entries.items()}
        return sorted(means, key=lambda name: math.inf if (mean := means[name]) is None else -mean)

    methods, references = summary["methods"], summary["without_supernet"]
    decimals = worth_decimals(methods)
    rows = []
    for name in by_mean(methods):
        method = methods[name]
        ranks, seconds = method["found_best_rank"]["trials"], method["seconds"]
        rows.append(
            {
                "name": name,
                "color": colors[name] % len(SERIES),
                "trials": method["trials"],
                "correlations": [_cell(method[key]) for key in _CORRELATIONS],
                "found": [_worth_cell(method[key], decimals) for key in ("found_mean", "found_best")],
                "rank": f"{np.median(ranks):,.0f}" if ranks else ABSENT,
                "seconds": [
                    duration(float(np.mean([each[key] for each in seconds]))) if seconds else ABSENT
                    for key in ("training", "measuring", "choosing")
                ],
            }
        )
    nothing = (ABSENT, "")
    for name in by_mean(references):
        reference = references[name]
        rows.append(
            {
                "name": name,
                "color": None,
                "trials": summary["trials"],
                "correlations": [_cell(reference[key]) if key in reference else nothing for key in _CORRELATIONS],
                "found": [nothing, nothing],
                "rank": ABSENT,
                "seconds": [ABSENT] * 3,
            }
        )
    return rows


def _cell(spread: Mapping[str, Any]) -> tuple[str, str]:
    """A correlation's mean and standard deviation, and its interval."""
    if spread["mean"] is None:
        return ABSENT, ""
    if spread["interval"] is None:
        return short(spread["mean"]), ""
    return f"{short(spread['mean'])} ± {short(spread['std'])}", f"[{ends_in_words(spread['interval'], by=', ')}]"


def _worth_cell(spread: Mapping[str, Any], decimals: int) -> tuple[str, str]:
    """The mean of a stand-alone worth, and its standard deviation."""
    several = spread["interval"] is not None
    return number(spread["mean"], decimals), f"± {number(spread['std'], decimals)}" if several else ""


def _ranking(
    study: SupernetStudy,
    name: str,
    records: Sequence[Record],
    alone: Sequence[Record],
    color: int,
    correlations: Sequence[float],
) -> tuple[Ranking, int] | None:
    """What the supernet of a method's first finished trial says at the end, and which trial that is."""
    trial = min((record.trial for record in records), default=-1)
    mine = [record for record in records if record.trial == trial and record.evaluation.status == "ok"]
    last = max((record.step for record in mine if record.stage.startswith(MEASURED)), default=-1)
    worth = {r.architecture: r.evaluation.score for r in alone if r.trial == trial and r.stage == MEASURED}
    measured = [record for record in mine if record.step == last and record.architecture in worth]
    if not measured:
        return None
    added = {record.architecture: record.evaluation.score for record in mine if record.stage == ADDED}
    found = [
        (record.evaluation.metrics["stand_alone"], record.evaluation.score)
        for record in mine
        if record.stage == FOUND and "stand_alone" in record.evaluation.metrics
    ]
    landmarks = []
    if study.methods[name].landmarks is not None:
        key = study.landmark_key(name)
        landmarks = [r.evaluation.score for r in alone if r.trial == trial and r.stage == key]
    marks = np.array([*landmarks, *added.values()], dtype=np.float64)
    ranking = Ranking(
        f"{name}: {short(correlations[0])}" if correlations else name,
        np.array([(worth[record.architecture], record.evaluation.score) for record in measured]),
        np.array([record.architecture in added for record in measured]),
        np.reshape(found, (-1, 2)).astype(np.float64),
        marks[~np.isnan(marks)],
        color,
    )
    return ranking, trial


def _best(study: SupernetStudy, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The best architecture that each method returned in any trial, once for all methods that share it."""
    best: dict[str, dict[str, Any]] = {}
    for name, method in summary["methods"].items():
        candidates = [
            (-math.inf if worth is None else worth, text)
            for found in method["found"]
            for text, worth in zip(found["architectures"], found["stand_alone"], strict=True)
        ]
        if not candidates:
            continue
        worth, text = max(candidates, key=lambda each: each[0])
        ranks = method["found_best_rank"]["trials"]
        entry = {
            "finders": [],
            "worth": f"{worth:.6g}" if math.isfinite(worth) else "",
            "rank": f"{min(ranks):,.0f}" if ranks else "",
            "text": text,
            "drawing": architecture_svg(study.space.diagram(study.space.parse(text)), study.space.places()),
        }
        best.setdefault(text, entry)["finders"].append(name)
    return [entry | {"finders": listed(entry["finders"])} for entry in best.values()]


def _explained(study: SupernetStudy, name: str) -> dict[str, str]:
    """What a method is, in a line."""
    method = study.methods[name]
    with torch.random.fork_rng(devices=[]):
        sampler = type(method.sampler(study.space))
    landmarks = ""
    if (settings := method.landmarks) is not None:
        chosen = method.landmarks_from
        source = f"from {chosen.file}" if chosen.file else f"{chosen.count}, {chosen.how}"
        source += ", none trained: pairs whose order all attributes agree on" if chosen.worth == "attributes" else ""
        more = (
            f", {chosen.added} more after each of {chosen.iterations - 1} iterations" if chosen.iterations > 1 else ""
        )
        landmarks = (
            f"Landmarks: {source}{more}; weight up to {settings.coefficient:g} ({settings.schedule}), from epoch "
            f"{settings.warmup + 1} on."
        )
    line = (sampler.__doc__ or "").strip().partition("\n")[0]
    return {"name": name, "class": sampler.__name__, "line": line, "landmarks": landmarks}
