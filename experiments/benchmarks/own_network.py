"""Is weight sharing in a network of one's own real: do shared weights rank, does a search beat random, do they go on?

    catchmark run experiments/own_network/mobile_reduced.yaml --runs runs --seed 0
    python experiments/benchmarks/own_network.py runs/mobile_reduced/latest [more runs, of other seeds] [--go-on]

Reads what runs of a supernet study have in their journals; their data must be where they were. For each method, mean
and standard deviation over all trials of all runs of

* Kendall's tau and Spearman's rho of scores with shared weights and of training alone, over the random architectures;
* the best of what the search found, trained alone, less the best of as many random networks as could have been
  trained for the same seconds (supernet, choice, and the training of what was found), which is the mean over all draws
  of so many of those that there are, and said where there are fewer.

With ``--go-on`` the first network that each search found is trained once more by the study's ground truth, from the
shared weights instead of fresh ones: the same epochs, data and order. It trains a network a method and trial.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scipy import stats

from search.deploy.shared_start import FoundSupernet
from search.evaluation import Architecture
from search.randomness import derive_seed
from search.recipes.recipe import load_recipe
from search.recipes.trust import granted
from search.results.found_networks import found_and_drawn
from search.runs.journal import Journal, Record
from search.studies.supernet_job import MEASURED
from search.studies.supernet_study import SupernetStudy
from search.tasks.trained import TrainedTask
from search.training.fit import fit


@dataclass(frozen=True)
class Trial:
    """One trial of one method.

    Attributes:
        run: the folder that it is of.
        study: of that run.
        method: of the study.
        trial: which.
        found: what was found, best first by the method itself.
        shared: scores with shared weights at the end, of the random architectures.
        alone: what these come to when they are trained alone, in the same order.
        training: seconds that such a training takes.
    """

    run: Path
    study: SupernetStudy
    method: str
    trial: int
    found: list[Record]
    shared: list[float]
    alone: list[float]
    training: float

    @property
    def affordable(self) -> int:
        """How many random networks could be trained in the time of the search and of the training of what it found."""
        spent = self.found[0].evaluation.metrics
        search = spent["training"] + spent["choosing"]
        return int((search + len(self.found) * self.training) / self.training)


def main() -> None:
    """Read, perhaps train, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--go-on", action="store_true", help="train what was found from shared weights, too")
    given = parser.parse_args()
    by_method: dict[str, list[Trial]] = {}
    for run in given.runs:
        for each in trials_of(run):
            by_method.setdefault(each.method, []).append(each)
    for method, trials in by_method.items():
        ours = [max(each.evaluation.metrics["stand_alone"] for each in trial.found) for trial in trials]
        theirs = [best_of(trial.alone, trial.affordable) for trial in trials]
        taus = [stats.kendalltau(trial.shared, trial.alone).statistic for trial in trials]
        rhos = [stats.spearmanr(trial.shared, trial.alone).statistic for trial in trials]
        counts = [trial.affordable for trial in trials]
        print(f"\n{method}, {len(trials)} trials")
        print(
            f"Kendall's tau {_spread(taus)}, Spearman's rho {_spread(rhos)}, over {len(trials[0].alone)} architectures"
        )
        print(f"best found, trained alone: {_spread(ours)} %")
        print(f"best of {counts} random networks: {_spread(theirs)} % ({len(trials[0].alone)} were trained)")
        print(f"found less random: {_spread([one - two for one, two in zip(ours, theirs, strict=True)])} points")
        print(f"random, mean: {_spread([statistics.mean(trial.alone) for trial in trials])} %")
        if given.go_on:
            _go_on(trials)


def trials_of(run: Path) -> list[Trial]:
    """What a run has: as many of its trials as are finished."""
    study, _ = load_recipe(run / "config.yaml", trust=granted())
    assert isinstance(study, SupernetStudy), f"{run} is not a run of a SupernetStudy"
    found, drawn = found_and_drawn(run, study)
    trials = []
    for method, records in found.items():
        shared = _shared(run, method)
        for trial in sorted({record.trial for record in records}):
            there = [each for each in drawn if each.trial == trial and (trial, each.architecture) in shared]
            trials.append(
                Trial(
                    run,
                    study,
                    method,
                    trial,
                    [each for each in records if each.trial == trial],
                    [shared[trial, each.architecture] for each in there],
                    [each.evaluation.score for each in there],
                    statistics.mean(each.evaluation.cost_seconds for each in there),
                )
            )
    return trials


def _shared(run: Path, method: str) -> dict[tuple[int, Architecture], float]:
    """Scores with shared weights at the end, by trial and architecture."""
    with closing(Journal(run / "journal.sqlite", writable=False)) as journal:
        return {
            (each.trial, each.architecture): each.evaluation.score
            for each in journal.records(method)
            if each.stage.startswith(MEASURED)  # later rounds replace earlier ones
        }


def best_of(scores: Sequence[float], count: int) -> float:
    """The mean, over all draws of so many scores, of the best; of all scores, where there are no more."""
    ordered, n = sorted(scores), len(scores)
    count = min(count, n)
    return sum(math.comb(k, count - 1) * score for k, score in enumerate(ordered)) / math.comb(n, count)


def _go_on(trials: Sequence[Trial]) -> None:
    """What the first network of each search comes to, from shared weights and from fresh ones."""
    ends, fresh = [], []
    for each in trials:
        task, record = each.study.truth, each.found[0]
        assert isinstance(task, TrainedTask)
        seed = derive_seed(each.study.seed + each.trial, "supernet")  # that of its training from fresh weights
        supernet = FoundSupernet(each.run, each.study, each.method, each.trial)
        state = supernet.start(task, record.architecture, seed).state
        make = partial(task.start, record.architecture, seed, shared=state)
        ends.append(fit(make, task.data, task.plan(seed)).metrics[task.score])
        fresh.append(record.evaluation.metrics["stand_alone"])
    gains = [one - two for one, two in zip(ends, fresh, strict=True)]
    print(f"the first found, trained from shared weights: {_spread(ends)} %, from fresh ones: {_spread(fresh)} %")
    print(f"shared less fresh: {_spread(gains)} points")


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation} ({', '.join(f'{value:.2f}' for value in values)})"


if __name__ == "__main__":
    main()
