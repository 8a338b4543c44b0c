"""What agents of a run pay until they have found a network that is good enough, by full evaluations alone.

    python experiments/benchmarks/fidelities.py RUN --regret 2 1 0.5     where the best of the space is known
    python experiments/benchmarks/fidelities.py RUN --score 95 96        where it is not
    options: --epochs counts trained epochs instead of seconds; --baseline random

A row an agent: the share of trials that got there within what they spent; the mean cost until then, where a trial that
never got there counts with all that it spent, so that the mean is too low for agents that often fail; its 95%
interval over trials; and the ratio to the baseline's mean, with a 95% interval from 2,000 bootstrap samples of both
agents' trials.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

import numpy as np

from search.loop.time_budget import within
from search.recipes.recipe import load_recipe
from search.runs.folders import CONFIG, JOURNAL
from search.runs.journal import Journal, Record
from search.statistics.intervals import mean_interval
from search.studies.experiment import Experiment
from search.tasks.base import Task


def costs_to(
    records: list[Record], trials: int, threshold: float, task: Task, epochs: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What each trial pays until a full evaluation scores at least so much.

    Args:
        records: of one search, those that count, in order.
        trials: how many.
        threshold: the score.
        task: evaluated them; of a full evaluation of fresh weights its epochs count.
        epochs: count epochs, not seconds.

    Returns:
        Costs ``[trials]``, of a trial that never got there all that it spent; and whether it got there.
    """
    spent, reached = np.zeros(trials), np.zeros(trials, dtype=bool)
    for record in records:
        if reached[record.trial]:
            continue
        evaluation = record.evaluation
        whole = float(getattr(task, "epochs", 0) or 0)
        spent[record.trial] += evaluation.metrics.get("epochs", whole) if epochs else evaluation.cost_seconds
        reached[record.trial] = record.can_be_best and evaluation.score >= threshold
    return spent, reached


def main() -> None:
    """Print a table for each target and threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--regret", type=float, nargs="*", default=[], help="below the best of the space")
    parser.add_argument("--score", type=float, nargs="*", default=[], help="to be reached")
    parser.add_argument("--epochs", action="store_true", help="count epochs")
    parser.add_argument("--baseline", default="random", help="the agent that others are compared with")
    chosen = parser.parse_args()
    experiment, _ = load_recipe(chosen.run / CONFIG)
    assert isinstance(experiment, Experiment)
    with closing(Journal(chosen.run / JOURNAL, writable=False)) as journal:
        for name, task in experiment.targets.items():
            known = {
                agent: within(journal.records(f"{name}/{agent}"), experiment.seconds(name))
                for agent in experiment.agent_names
            }
            thresholds = {f"a score of {score:g}": score for score in chosen.score}
            if chosen.regret and (everything := task.all_scores()) is not None:
                best = float(np.nanmax(everything.numpy()))
                thresholds |= {f"a regret of {regret:g}": best - regret for regret in chosen.regret}
            for words, threshold in thresholds.items():
                found = {
                    agent: costs_to(records, experiment.trials, threshold, task, chosen.epochs)
                    for agent, records in known.items()
                }
                _print(name, words, found, chosen.baseline, "epochs" if chosen.epochs else "seconds")


def _print(target: str, words: str, found: dict[str, tuple[np.ndarray, np.ndarray]], baseline: str, unit: str) -> None:
    print(f"\n**{target}**, {words}\n\n| agent | reached | {unit} | beside {baseline} |\n|---|---|---|---|")
    draw = np.random.default_rng(0)
    for agent, (costs, reached) in found.items():
        low, high = mean_interval(costs) or (float("nan"), float("nan"))
        base = found[baseline][0]
        picks = draw.integers(len(costs), size=(2, 2000, len(costs)))
        ends = np.quantile(costs[picks[0]].mean(1) / base[picks[1]].mean(1), [0.025, 0.975])
        ratio = "" if agent == baseline else f"{costs.mean() / base.mean():.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
        print(f"| {agent} | {reached.mean():.2f} | {costs.mean():,.0f} [{low:,.0f}, {high:,.0f}] | {ratio} |")


if __name__ == "__main__":
    main()
