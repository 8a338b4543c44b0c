"""How much of what can be dominated the agents of a run dominate, after several numbers of evaluations.

    python experiments/benchmarks/objectives.py RUN [--after 50 100 200]

A row an agent: of each target the share of the hypervolume of the true front (or, where that is not known, of the
front of all that was evaluated), down to the worst value of each objective: mean over trials, and its 95% interval. The
report of the run has the same in the end, and curves.
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
    chosen = parser.parse_args()
    experiment, _ = load_recipe(chosen.run / CONFIG)
    assert isinstance(experiment, Experiment)
    with closing(Journal(chosen.run / JOURNAL, writable=False)) as journal:
        for name, task in experiment.targets.items():
            found = {
                agent: objective_values(journal.records(f"{name}/{agent}"), experiment.trials, task)
                for agent in experiment.agent_names
                if journal.progress(f"{name}/{agent}")[0]
            }
            curves = coverage(found, directions_of(task.objectives), feasible_space(task)).curves
            heads = " | ".join(f"after {n}" for n in chosen.after)
            print(f"\n**{name}**, {experiment.trials} trials\n\n| agent | {heads} |")
            print("|---|" + "---|" * len(chosen.after))
            for agent, curve in sorted(curves.items(), key=lambda each: -float(each[1][:, -1].mean())):
                print(f"| {agent} | {' | '.join(_cell(curve, n) for n in chosen.after)} |")


def _cell(curve: torch.Tensor, evaluations: int) -> str:
    if evaluations > curve.shape[1]:
        return ""
    column = 100 * curve[:, evaluations - 1]
    low, high = mean_interval(column.numpy()) or (float("nan"), float("nan"))
    return f"{float(column.mean()):.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
