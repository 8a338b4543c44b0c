"""What agents of a run pay until they have found a network that is good enough, by full evaluations alone.

    python experiments/benchmarks/fidelities.py RUN --regret 2 1 0.5     where the best of the space is known
    python experiments/benchmarks/fidelities.py RUN --score 95 96        where it is not
    options: --epochs counts trained epochs instead of seconds; --baseline random; --figures FOLDER draws, for each
    target, the mean of the best so far by what was paid, with the interval of two standard errors

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
from search.reports.line_chart import Line, line_chart, mean_line
from search.reports.svg import kept_in
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
        if not reached[record.trial]:
            spent[record.trial] += cost_of(record, task, epochs)
            reached[record.trial] = record.can_be_best and record.evaluation.score >= threshold
    return spent, reached


def cost_of(record: Record, task: Task, epochs: bool) -> float:
    """Epochs or seconds of an evaluation; a look-up does not say how many epochs it stands for."""
    if not epochs:
        return record.evaluation.cost_seconds
    asked = record.proposal.fidelity.get("epochs", getattr(task, "epochs", None) or 0)
    return float(record.evaluation.metrics.get("epochs", asked))


def best_by_cost(records: list[Record], trials: int, task: Task, epochs: bool) -> tuple[np.ndarray, np.ndarray]:
    """The best full evaluation so far by what was paid.

    Returns:
        Costs ``[m]``, up to what the trial that spent least has spent; and for each trial the best by then
        ``[trials, m]``, NaN before its first full evaluation.
    """
    spent = np.zeros(trials)
    steps: list[tuple[list[float], list[float]]] = [([0.0], [float("nan")]) for _ in range(trials)]
    for record in records:
        spent[record.trial] += cost_of(record, task, epochs)
        costs, best = steps[record.trial]
        costs.append(float(spent[record.trial]))
        best.append(np.fmax(best[-1], record.evaluation.score) if record.can_be_best else best[-1])
    grid = np.linspace(0, spent.min(), 201)
    return grid, np.stack([np.array(best)[np.searchsorted(costs, grid, "right") - 1] for costs, best in steps])


def main() -> None:
    """Print a table for each target and threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--regret", type=float, nargs="*", default=[], help="below the best of the space")
    parser.add_argument("--score", type=float, nargs="*", default=[], help="to be reached")
    parser.add_argument("--epochs", action="store_true", help="count epochs")
    parser.add_argument("--baseline", default="random", help="the agent that others are compared with")
    parser.add_argument("--figures", type=Path, help="a folder for curves as SVG and PDF")
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
            if chosen.figures is not None:
                with kept_in(chosen.figures):
                    _draw(name, known, task, experiment.trials, chosen.epochs)


def _draw(target: str, known: dict[str, list[Record]], task: Task, trials: int, epochs: bool) -> None:
    lines: list[Line] = []
    ends: list[float] = []
    for agent, records in known.items():
        costs, best = best_by_cost(records, trials, task, epochs)
        there = ~np.isnan(best).any(0)  # a mean over those alone that have been quick would fall
        costs, best = costs[there], best[:, there]
        lines.append(mean_line(agent, costs.tolist(), best, len(lines)))
        mean = best.mean(0)
        ends += [mean[len(mean) // 10], mean[-1]]
    low, high = min(ends), max(ends)
    y_range = (low, high + 0.05 * (high - low))
    line_chart(lines, "epochs" if epochs else "seconds", f"best so far on {target}: {task.score_name}", y_range=y_range)


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
