"""MFAS's claim: does a search for the fusion beat either modality, late fusion, all features at once, random search?

    catchmark run experiments/mfas/digits.yaml [once for each seed and pair of speakers, see experiments/mfas/README.md]
    python experiments/benchmarks/mfas.py RUN RUN ...

Reads what the runs have in their journals and trains nothing. A run has one trial; intervals are 95%, Student's t over
runs. Each agent's network is the one of the highest score; its test accuracy, which no agent saw, stands beside it.
Then Spearman's correlation of what the surrogate predicted with what it gave, over the trainings of each iteration: the
search is led through its journal again, which gives the same surrogate bit for bit.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search.agents.sequential_model_based import SequentialModelBased
from search.recipes.recipe import load_recipe
from search.recipes.trust import granted
from search.runs.journal import Journal
from search.statistics.intervals import mean_interval
from search.statistics.spearman import spearman_interval
from search.studies.experiment import Experiment

TEST = "test_accuracy"
Table = dict[str, dict[str, list[float]]]
"""By network, and by what was measured, a value of each run."""


def collect(runs: Iterable[Path]) -> Table:
    """Score and test accuracy of what each agent found, and of what needs no search."""
    table: Table = {}

    def add(name: str, values: dict[str, Any]) -> None:
        for key, value in values.items():
            table.setdefault(name, {}).setdefault(key, []).append(float(value))

    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        (target,) = summary["targets"].values()
        for agent, about in target["agents"].items():
            add(agent, {"score": about["best"]["score"], TEST: about["best"]["metrics"][TEST]})
        for name, measured in target.get("references", {}).items():
            add(name, {key: each["mean"] for key, each in measured.items()})
    return table


def surrogate_correlations(run: Path) -> list[float]:
    """Of each iteration of a run's first agent of sequential model-based search; NaN where there are too few."""
    experiment, _ = load_recipe(run / "config.yaml", trust=granted())
    assert isinstance(experiment, Experiment)
    (target,) = experiment.targets
    name = next(
        each for each in experiment.agent_names if isinstance(experiment.agent(each, trials=1), SequentialModelBased)
    )
    agent = experiment.agent(name, trials=1)
    assert isinstance(agent, SequentialModelBased)
    agent.begin_task(experiment.budget, adapting=True)
    pairs: dict[int, list[tuple[float, float]]] = {}
    journal = Journal(run / "journal.sqlite", writable=False)
    try:
        for record in journal.records(f"{target}/{name}"):
            archs = agent.ask(1)
            assert tuple(archs[0, 0].tolist()) == record.architecture, "another search than the journal's"
            if agent.step and record.evaluation.status == "ok":  # of the first step nothing was predicted
                found = (float(agent.predict(archs)), record.evaluation.score)
                pairs.setdefault(agent.iteration, []).append(found)
            agent.tell(archs, torch.tensor([[record.evaluation.score]], dtype=torch.float64))
    finally:
        journal.close()
    return [
        spearman_interval(*zip(*each, strict=True), draws=1)[0] if len(each) > 2 else math.nan
        for _, each in sorted(pairs.items())
    ]


def said(values: Sequence[float]) -> str:
    """Mean and interval."""
    interval = mean_interval(np.array(values))
    return f"{np.mean(values):.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs of experiments/mfas/digits.yaml")
    runs = parser.parse_args().runs
    table = collect(runs)
    print("| network | score | test accuracy |\n|---|---|---|")
    for name, measured in table.items():
        print(f"| {name} | {said(measured['score'])} | {said(measured[TEST])} |")
    first = next(iter(table))
    print(f"\n{first} less each other, run by run:\n")
    for name, measured in list(table.items())[1:]:
        less = {key: np.subtract(table[first][key], measured[key]) for key in ("score", TEST)}
        print(f"| {name} | {said(list(less['score']))} | {said(list(less[TEST]))} |")
    print("\n| iteration | correlation of prediction and score |\n|---|---|")
    for iteration, values in enumerate(zip(*map(surrogate_correlations, runs), strict=True), start=1):
        print(f"| {iteration} | {said(values)} |")


if __name__ == "__main__":
    main()
