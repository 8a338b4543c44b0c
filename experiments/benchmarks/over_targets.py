"""Which agent is ahead over all targets of a run together, where every score of each target's space is known.

    python experiments/benchmarks/over_targets.py RUN [RUN ...] [--agent bayes_weighted]

For each agent the rank of the best that a trial found, its mean over the targets, with a 95% interval over
meta-trainings (over trials where these are independent); and how far every other agent is behind ``--agent``, with
Welch's interval of the difference and a Mann-Whitney test, corrected by Holm for as many as there are. Agents that did
not search every target are left out. Agents of several runs of the same targets stand in one table; one that was
searched again is that of the last run.
"""

from __future__ import annotations

import argparse
import json
import math
from contextlib import closing
from pathlib import Path

import numpy as np
from scipy import stats

from search.recipes.recipe import load_recipe
from search.results.search import best_so_far, ranks_among
from search.runs.folders import CONFIG, JOURNAL, SUMMARY
from search.runs.journal import Journal
from search.statistics.clusters import independent_values
from search.statistics.intervals import mean_interval
from search.statistics.significance import holm, rank_test
from search.studies.experiment import Experiment


def main() -> None:
    """Print a row an agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--agent", help="whom the others are compared with (default: the one with the lowest mean)")
    chosen = parser.parse_args()
    found: dict[str, np.ndarray] = {}
    targets: list[str] = []
    for run in chosen.runs:
        experiment, _ = load_recipe(run / CONFIG)
        assert isinstance(experiment, Experiment)
        if targets and list(experiment.targets) != targets:
            parser.error(f"{run}: its targets are not those of {chosen.runs[0]}")
        targets = list(experiment.targets)
        try:
            found |= _ranks(run, experiment)
        except ValueError as error:
            parser.error(str(error))
    if chosen.agent and chosen.agent not in found:
        parser.error(f"--agent: '{chosen.agent}' searched not every target; those that did: {', '.join(found)}")
    ahead = chosen.agent or min(found, key=lambda name: found[name].mean())
    others = [name for name in found if name != ahead]
    corrected = dict(zip(others, holm([rank_test(found[ahead], found[name]) for name in others]), strict=True))
    print(f"| agent | mean rank over {len(targets)} targets | less {ahead} | p |\n|---|---|---|---|")
    for name in sorted(found, key=lambda name: found[name].mean()):
        low, high = mean_interval(found[name]) or (math.nan, math.nan)
        row = f"| {name} | {found[name].mean():.1f} [{low:.1f}, {high:.1f}] |"
        if name == ahead:
            print(f"{row} | |")
            continue
        apart = stats.ttest_ind(found[name], found[ahead], equal_var=False).confidence_interval()
        difference = found[name].mean() - found[ahead].mean()
        p_value = "" if (p := corrected[name]) is None else f"{p:.2g}"
        print(f"{row} {difference:.1f} [{apart.low:.1f}, {apart.high:.1f}] | {p_value} |")


def _ranks(run: Path, experiment: Experiment) -> dict[str, np.ndarray]:
    """By agent the mean over targets of the rank of the best that was found, one a meta-training (or trial)."""
    found = {}
    agents = json.loads((run / SUMMARY).read_text())["targets"]
    with closing(Journal(run / JOURNAL, writable=False)) as journal:
        for name in experiment.agent_names:
            ranks = []
            for target, task in experiment.targets.items():
                everything = task.all_scores()
                if everything is None:
                    raise ValueError(f"{target}: the scores of its whole space are not known")
                scores = everything.numpy()
                curve = best_so_far(journal.records(f"{target}/{name}"), experiment.trials, experiment.seconds(target))
                best = curve[:, -1] if curve.shape[1] else np.full(experiment.trials, np.nan)
                ranks.append(ranks_among(best, np.sort(scores[~np.isnan(scores)])[::-1]))
            together = np.stack(ranks).mean(0)
            if not np.isnan(together).all():
                about = next(iter(agents.values()))["agents"][name]
                found[name] = independent_values(together, about.get("meta_trainings"))
    return found


if __name__ == "__main__":
    main()
