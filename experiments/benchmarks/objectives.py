"""How much of what can be dominated the agents of a run dominate, after several numbers of evaluations.

    python experiments/benchmarks/objectives.py RUN [--after 50 100 200] [--cost 2000 4000]

A row an agent: of each target the share of the hypervolume of the true front (or, where that is not known, of the
front of all that was evaluated), down to the worst value of each objective: mean over trials, and its 95% interval. The
report of the run has the same in the end, and curves. ``--cost`` counts seconds that evaluations are said to cost, in
place of evaluations: for agents of several fidelities.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

import torch

from search.recipes.recipe import load_recipe
from search.results.fronts import coverage, directions_of, feasible_space, objective_values
from search.runs.folders import CONFIG, JOURNAL
from search.runs.journal import Journal
from search.statistics.intervals import mean_interval
from search.studies.experiment import Experiment


def main() -> None:
    """Print a table for each target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--after", type=int, nargs="+", default=[50, 100, 200], help="evaluations a trial")
    parser.add_argument("--cost", type=float, nargs="+", help="seconds a trial, in place of evaluations")
    chosen = parser.parse_args()
    experiment, _ = load_recipe(chosen.run / CONFIG)
    assert isinstance(experiment, Experiment)
    with closing(Journal(chosen.run / JOURNAL, writable=False)) as journal:
        for name, task in experiment.targets.items():
            records = {
                agent: list(journal.records(f"{name}/{agent}"))
                for agent in experiment.agent_names
                if chosen.cost or journal.progress(f"{name}/{agent}")[0]
            }
            columns: dict[str, dict[str, torch.Tensor]] = {}
            for seconds in chosen.cost or [None]:
                found = {
                    agent: objective_values(each, experiment.trials, task, seconds) for agent, each in records.items()
                }
                covered = coverage(found, directions_of(task.objectives), feasible_space(task))
                if seconds is not None:
                    columns[f"{seconds:g} s"] = covered.shares
                    continue
                for n in chosen.after:
                    reached = {agent: curve[:, n - 1] for agent, curve in covered.curves.items() if n <= curve.shape[1]}
                    columns[f"after {n}"] = reached
            print(f"\n**{name}**, {experiment.trials} trials\n\n| agent | {' | '.join(columns)} |")
            print("|---|" + "---|" * len(columns))
            for agent in records:
                print(f"| {agent} | {' | '.join(_cell(column.get(agent)) for column in columns.values())} |")


def _cell(shares: torch.Tensor | None) -> str:
    if shares is None or not len(shares):
        return ""
    low, high = mean_interval(100 * shares.numpy()) or (float("nan"), float("nan"))
    return f"{100 * float(shares.mean()):.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
