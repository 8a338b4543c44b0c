"""What a ranking found: a table, the top of it, and how far truths agree."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.attributes.combined_ranks import oriented_columns
from search.results.attributes import FEWEST_ARCHITECTURES
from search.runs.journal import Journal, Record
from search.statistics.rank_correlation import kendall_tau, spearman
from search.tables.table import write_table

if TYPE_CHECKING:
    from search.studies.ranking import Ranking

PART = "ranking"
"""The name of a ranking's only part in the journal."""
CSV, TABLE = "ranking.csv", "ranking.npz"


def columns_of(study: Ranking, records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Every attribute, combination and truth: float64 ``[architectures]`` by name, NaN where there is no value."""
    rows = [record.evaluation.attributes for record in records]
    columns = {name: np.array([row.get(name, math.nan) for row in rows]) for name in study.attributes}
    better = oriented_columns(study.attributes, rows)
    columns |= {name: each.of(better) for name, each in study.combinations.items()} if records else {}
    for name in study.truths:
        columns[name] = np.array([record.evaluation.metrics.get(name, math.nan) for record in records])
    return columns


def summarise_ranking(study: Ranking, journal: Journal) -> dict[str, Any]:
    """The content of ``summary.json``.

    By attribute and combination its ``unit``, ``direction``, how many ``architectures`` have a value, and for each
    truth ``kendall_tau`` (tau-b) and ``spearman`` over the architectures that the truth knows: above 0 where the
    direction says rightly which values go with better networks. Where an attribute has no value it counts as the
    worst. ``top`` are the first architectures by ``order``, with all of their values.
    """
    records = _records(study, journal)
    columns = columns_of(study, records)
    summary: dict[str, Any] = {
        "name": study.name,
        "description": study.description,
        "space": study.space.name,
        "seed": study.seed,
        "architectures": len(records),
        # Of a finished ranking nobody needs what it was asked for, such as a file of architectures.
        "planned": len(records) if journal.progress(PART)[0] else len(study.architectures),
        "order": study.order,
        "truths": {name: task.score_name for name, task in study.truths.items()},
        "attributes": {},
        "top": [],
    }
    for name in (*study.attributes, *study.combinations):
        attribute = study.attributes.get(name)
        direction = "max" if attribute is None else attribute.direction
        values = columns.get(name, np.zeros(0)) * (1 if direction == "max" else -1)
        summary["attributes"][name] = {
            "unit": "" if attribute is None else attribute.unit,
            "direction": direction,
            "architectures": int((~np.isnan(values)).sum()),
            "kendall_tau": {truth: _agreement(kendall_tau, columns[truth], values) for truth in study.truths},
            "spearman": {truth: _agreement(spearman, columns[truth], values) for truth in study.truths},
        }
    if records:
        direction = summary["attributes"][study.order]["direction"]
        values = columns[study.order] * (1 if direction == "max" else -1)
        first = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[: study.top]
        summary["top"] = [
            {
                "architecture": study.space.format(records[k].architecture),
                "values": {name: _plain(column[k]) for name, column in columns.items()},
            }
            for k in first
        ]
    return summary


def write_tables(study: Ranking, journal: Journal, folder: Path) -> None:
    """Write the whole table: for people as CSV, and as a benchmark table that `TableColumn` and others read."""
    records = _records(study, journal)
    columns = columns_of(study, records)
    with (folder / CSV).open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["architecture", *columns])
        for k, record in enumerate(records):
            values = ("" if math.isnan(column[k]) else repr(float(column[k])) for column in columns.values())
            lines.writerow([study.space.format(record.architecture), *values])
    write_table(
        folder / TABLE,
        np.array([record.architecture for record in records]),
        columns,
        study.space.name,
        {"source": study.name, "converter": "catchmark rank"},
    )


def ranking_in_words(summary: Mapping[str, Any]) -> str:
    """What a terminal shows: the top, and Kendall's tau-b and Spearman of everything with every truth."""
    lines = [f"top {len(summary['top'])} of {summary['architectures']:,} by {summary['order']}:"]
    for place, each in enumerate(summary["top"], start=1):
        truths = "".join(f"  {name} {_short(each['values'][name])}" for name in summary["truths"])
        lines.append(f"{place:>4}  {each['architecture']}  {_short(each['values'][summary['order']])}{truths}")
    if summary["truths"]:
        width = max(len(name) for name in summary["attributes"])
        lines.append("Kendall's tau-b / Spearman with " + ", ".join(summary["truths"]) + ":")
        for name, entry in summary["attributes"].items():
            cells = (
                f"{_short(entry['kendall_tau'][truth])} / {_short(entry['spearman'][truth])}"
                for truth in summary["truths"]
            )
            lines.append(f"  {name:<{width}}  {'   '.join(cells)}")
    return "\n".join(lines)


def _records(study: Ranking, journal: Journal) -> list[Record]:
    return list(journal.records(PART)) if PART in journal.searches() else []


def _agreement(measure: Any, truth: np.ndarray, values: np.ndarray) -> float | None:
    known = ~np.isnan(truth)
    if known.sum() < FEWEST_ARCHITECTURES:
        return None
    return _plain(measure(truth[known], values[known]))


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
