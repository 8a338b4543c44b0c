"""What runs have in common and in what they differ: scores, significance, settings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import CatchmarkError, explain
from search.recipes.moved import paths_today
from search.recipes.trust import read_json
from search.recipes.yaml_text import parse_yaml
from search.results.search import best_so_far
from search.runs.folders import JOURNAL, shown_path
from search.runs.journal import Journal
from search.statistics.clusters import clustered_rank_test, described_trials
from search.statistics.significance import SIGNIFICANT, holm
from search.studies.meta_training import PHASE

_MOST_TRIALS = 100_000
"""No run has that many; a damaged summary may say so."""


@dataclass(frozen=True)
class Row:
    """What one agent found on one target in one run.

    Attributes:
        run: the run's letter.
        curves: float64 ``[trials, evaluations]``, the best score after each evaluation, NaN before the first success.
        summary: the agent's entry of ``summary.json``.
        meta_trainings: that the trials start from in turn, if they do.
    """

    run: str
    target: str
    agent: str
    score_name: str
    space: str
    failed: int
    curves: np.ndarray = field(repr=False)
    summary: dict[str, Any] = field(repr=False)
    meta_trainings: int | None = None

    @property
    def trials(self) -> str:
        """How many, in words."""
        return described_trials(len(self.curves), self.meta_trainings)

    @property
    def evaluations(self) -> int:
        """Evaluations a trial."""
        return self.curves.shape[1]

    def best_of_trials(self, evaluations: int | None = None) -> np.ndarray:
        """The best score of each trial after so many evaluations: float64 ``[trials]``, NaN where it found none."""
        evaluations = self.evaluations if evaluations is None else evaluations
        return np.full(len(self.curves), np.nan) if evaluations == 0 else self.curves[:, evaluations - 1]

    def best(self, evaluations: int | None = None) -> np.ndarray:
        """The best score of each trial that found one, after so many evaluations: float64 ``[<= trials]``."""
        best = self.best_of_trials(evaluations)
        return best[~np.isnan(best)]


@dataclass(frozen=True)
class Difference:
    """Two rows of a target against each other, at equal numbers of evaluations.

    Attributes:
        first: the row whose mean is taken.
        second: the row whose mean is subtracted.
        evaluations: how many, a trial, both are judged by: the fewer of the two.
        difference: of the means; None where one of them found nothing.
        p_value: Mann-Whitney U, two-sided, over trials or over means of meta-trainings, Holm-corrected over the pairs
            of its kind on the target; None where there are too few.
    """

    first: Row
    second: Row
    evaluations: int
    difference: float | None
    p_value: float | None

    @property
    def verdict(self) -> str:
        """What can be said."""
        if self.difference is None:
            return "nothing found to compare"
        if self.p_value is None:
            return "too few trials"
        return "significant" if self.p_value < SIGNIFICANT else "not significant"


@dataclass(frozen=True)
class Comparison:
    """Two or more runs side by side.

    Attributes:
        runs: the shown folder of each run, by its letter.
        rows: target by target, agent by agent, run by run.
        same_agent: differences between runs of agents with the same name.
        other_pairs: all other pairs on a target.
        settings: recipe keys in which the runs differ: the value of each run, None where it lacks the key.
        notes: what makes the comparison less than fair, a sentence each.
    """

    runs: dict[str, str]
    rows: list[Row]
    same_agent: list[Difference]
    other_pairs: list[Difference]
    settings: dict[str, dict[str, str | None]]
    notes: list[str]

    def targets(self) -> dict[str, list[Row]]:
        """The rows of each target."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.target, []).append(row)
        return found


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Read two or more run folders and compare them.

    Raises:
        CatchmarkError: fewer than two, one of them twice, or a folder that is not a run.
    """
    resolved = [Path(folder).resolve() for folder in folders]
    if len(resolved) < 2:
        raise CatchmarkError(f"compare: {len(resolved)} run given, two or more are needed")
    for folder in resolved:
        if resolved.count(folder) > 1:
            raise CatchmarkError(f"compare: {folder} is given twice")
    runs = dict(zip(_letters(len(resolved)), resolved, strict=True))
    notes: list[str] = []
    rows = [row for letter, folder in runs.items() for row in _read_run(letter, folder, notes)]
    places = {key: k for k, key in reversed(list(enumerate((row.target, row.agent) for row in rows)))}
    targets = list(dict.fromkeys(row.target for row in rows))
    rows.sort(key=lambda row: (targets.index(row.target), places[row.target, row.agent]))  # stable: runs stay in order
    same_agent, other_pairs = [], []
    for target in targets:
        members = [row for row in rows if row.target == target]
        scales = {(row.score_name, row.space): row for row in members}
        if len(scales) > 1:
            kinds = "; ".join(f"{row.run} has '{name}' on space '{space}'" for (name, space), row in scales.items())
            notes.append(f"target '{target}' is not the same everywhere, so such runs are not compared on it: {kinds}.")
        if len({row.evaluations for row in members}) > 1:
            notes.append(
                f"target '{target}': the runs have different numbers of evaluations a trial; each pair is judged by "
                "the fewer."
            )
        pairs = [
            (a, b) for a, b in itertools.combinations(members, 2) if (a.score_name, a.space) == (b.score_name, b.space)
        ]
        same_agent += differences([(a, b) for a, b in pairs if a.agent == b.agent])
        other_pairs += differences([(a, b) for a, b in pairs if a.agent != b.agent])
    settings = _settings({letter: folder / "config.yaml" for letter, folder in runs.items()})
    shown = {letter: shown_path(folder) for letter, folder in runs.items()}
    return Comparison(shown, rows, same_agent, other_pairs, settings, notes)


def differences(pairs: Sequence[tuple[Row, Row]]) -> list[Difference]:
    """The difference of each pair; p-values are corrected for the number of pairs."""
    cut = [min(a.evaluations, b.evaluations) for a, b in pairs]
    scores = [(a.best(n), b.best(n)) for (a, b), n in zip(pairs, cut, strict=True)]
    p_values = holm(
        [
            clustered_rank_test(a.best_of_trials(n), b.best_of_trials(n), (a.meta_trainings, b.meta_trainings))
            for (a, b), n in zip(pairs, cut, strict=True)
        ]
    )
    return [
        Difference(a, b, n, float(x.mean() - y.mean()) if len(x) and len(y) else None, p)
        for (a, b), n, (x, y), p in zip(pairs, cut, scores, p_values, strict=True)
    ]


def _read_run(letter: str, folder: Path, notes: list[str]) -> list[Row]:
    if not (folder / JOURNAL).is_file():
        raise CatchmarkError(f"{folder} is not a run folder: it has no {JOURNAL}")
    try:
        summary = read_json(folder / "summary.json")
    except FileNotFoundError:
        raise CatchmarkError(f"{folder} has no summary.json; write it with: catchmark report {folder}") from None
    except ValueError as error:
        raise CatchmarkError(
            f"{folder / 'summary.json'} is damaged ({error}); mend: catchmark report {folder}"
        ) from error
    except OSError as error:
        raise CatchmarkError(explain(error)) from error
    if "targets" not in summary:
        did, what = ("trained supernets", "methods") if "methods" in summary else ("ranked architectures", "attributes")
        raise CatchmarkError(f"{folder} {did}; only searches are compared here, {what} in its report.html")
    try:
        return _rows(letter, folder, summary, notes)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CatchmarkError(
            f"{folder / 'summary.json'} is damaged, or not that of the journal beside it ({explain(error)}); mend: "
            f"catchmark report {folder}"
        ) from error


def _rows(letter: str, folder: Path, summary: Mapping[str, Any], notes: list[str]) -> list[Row]:
    rows = []
    with closing(Journal(folder / JOURNAL, writable=False)) as journal:
        if unfinished := [name for name in journal.searches() if not journal.progress(name)[0]]:
            notes.append(f"run {letter} is unfinished, it goes on with: {', '.join(unfinished)}.")
        for target, found in summary["targets"].items():
            score_name, space = str(found["score_name"]), str(summary["space"])
            for agent, numbers in found["agents"].items():
                if not 1 <= numbers["trials"] <= _MOST_TRIALS:
                    raise ValueError(f"trials is {numbers['trials']}")
                curves = best_so_far(
                    journal.records(f"{target}/{agent}"), numbers["trials"], found.get("budget_seconds")
                )
                if curves.shape[1] != numbers["evaluations"]:
                    raise CatchmarkError(
                        f"{folder / 'summary.json'} is older than the journal; write it anew: catchmark report {folder}"
                    )
                shared = _meta_trainings(summary, target, agent)
                failed = int(numbers["failed"])
                rows.append(Row(letter, target, agent, score_name, space, failed, curves, numbers, shared))
    return rows


def _meta_trainings(summary: Mapping[str, Any], target: str, agent: str) -> int | None:
    """How many meta-trainings the trials of a search start from in turn; None where they start from none."""
    phases = summary.get(PHASE) or {}
    phase = phases.get(f"{agent} for {target}", phases.get(agent))
    return None if phase is None else int(phase["trials"])


def flatten(config: Any, key: str = "") -> dict[str, str]:
    """A recipe as dotted keys with values as text; list entries have their place in brackets."""
    if isinstance(config, Mapping) and config:
        parts: Iterable[tuple[str, Any]] = (
            (f"{key}.{name}" if key else str(name), each) for name, each in config.items()
        )
    elif isinstance(config, list) and any(isinstance(each, dict | list) for each in config):
        parts = ((f"{key}[{k}]", each) for k, each in enumerate(config))
    else:
        return {key: config if isinstance(config, str) else json.dumps(config, default=str)}
    return {name: value for inner, each in parts for name, value in flatten(each, inner).items()}


def _settings(paths: Mapping[str, Path]) -> dict[str, dict[str, str | None]]:
    configs: dict[str, dict[str, str]] = {}
    for letter, path in paths.items():
        try:
            configs[letter] = (
                flatten(paths_today(parse_yaml(path.read_text(encoding="utf-8")))) if path.is_file() else {}
            )
        except CatchmarkError as error:
            raise CatchmarkError(f"{path} is not valid YAML: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise CatchmarkError(f"{path} can't be read: {explain(error)}") from error
    keys = dict.fromkeys(itertools.chain.from_iterable(configs.values()))
    values = {key: {letter: config.get(key) for letter, config in configs.items()} for key in keys}
    return {key: each for key, each in values.items() if len(set(each.values())) > 1}


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + k) if k < 26 else f"R{k + 1}" for k in range(count)]
