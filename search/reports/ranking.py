"""The report of a ranking: one HTML page, made of the journal and its summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.reports.page import ABSENT, render_page
from search.reports.provenance import provenance
from search.reports.ranking_plots import agreement_svg
from search.results.ranking import PART
from search.runs.journal import Journal

if TYPE_CHECKING:
    from search.studies.ranking import Ranking


def report_page(folder: Path, study: Ranking, journal: Journal, summary: Mapping[str, Any]) -> str:
    """The report of a ranking.

    Args:
        folder: of the run.
        study: what its recipe describes.
        journal: what was measured so far.
        summary: `search.results.ranking.summarise_ranking` of that journal.

    Returns:
        One HTML page that needs no other file.
    """
    return render_page(
        "ranking",
        "ranking.html.jinja",
        **provenance(folder, study, journal),
        summary=summary,
        verdict=_verdict(summary),
        agreement=agreement_svg(
            {name: entry["kendall_tau"] for name, entry in summary["attributes"].items()}, list(summary["truths"])
        ),
        seconds=journal.progress(PART)[1],
        shown=[summary["order"], *summary["truths"]],
        value=_value,
    )


def _verdict(summary: Mapping[str, Any]) -> str:
    """Which attribute agrees best with each truth, in a sentence."""
    said = []
    for truth in summary["truths"]:
        taus = {name: entry["kendall_tau"][truth] for name, entry in summary["attributes"].items()}
        known = {name: tau for name, tau in taus.items() if tau is not None}
        if known:
            best = max(known, key=lambda name: known[name])
            said.append(f"of {truth} it is {best}, with a Kendall's tau-b of {known[best]:.3f}")
    if not said:
        return "What attributes say of these architectures; there was no truth to compare them with."
    return f"What orders these architectures best: {'; '.join(said)}."


def _value(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"
