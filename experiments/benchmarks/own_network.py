"""Is weight sharing in a network of one's own real: do shared weights rank, does a search beat random, do they go on?

    catchmark run experiments/own_network/mobile_reduced.yaml --runs runs --trials 3
    python experiments/benchmarks/own_network.py runs/mobile_reduced/latest [--go-on]

Reads what a run of a supernet study has in its journal; its data must be where they were. For each method, mean and
standard deviation over trials of

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
from pathlib import Path

from scipy import stats

from search.deploy.shared_start import FoundSupernet
from search.randomness import derive_seed
from search.recipes.recipe import load_recipe
from search.recipes.trust import granted
from search.results.found_networks import found_and_drawn
from search.runs.journal import Journal, Record
from search.studies.supernet_job import MEASURED
from search.studies.supernet_study import SupernetStudy
from search.tasks.trained import TrainedTask
from search.training.fit import fit


def main() -> None:
    """Read, perhaps train, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--go-on", action="store_true", help="train what was found from shared weights, too")
    given = parser.parse_args()
    study, _ = load_recipe(given.run / "config.yaml", trust=granted())
    assert isinstance(study, SupernetStudy), f"{given.run} is not a run of a SupernetStudy"
    found, drawn = found_and_drawn(given.run, study)
    for method, records in found.items():
        trials = sorted({record.trial for record in records})
        print(f"\n{method}, {len(trials)} trials")
        if not trials:
            continue
        shared = _shared(given.run, method)
        taus, rhos, ours, theirs, affordable = [], [], [], [], []
        for trial in trials:
            own = [each for each in records if each.trial == trial]
            alone = {each.architecture: each.evaluation.score for each in drawn if each.trial == trial}
            pairs = [(score, alone[arch]) for (at, arch), score in shared.items() if at == trial]
            taus.append(stats.kendalltau(*zip(*pairs, strict=True)).statistic)
            rhos.append(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
            costs = [each.evaluation.cost_seconds for each in drawn if each.trial == trial]
            count = _affordable(own, statistics.mean(costs))
            affordable.append(count)
            ours.append(max(each.evaluation.metrics["stand_alone"] for each in own))
            theirs.append(best_of(list(alone.values()), count))
        print(f"Kendall's tau {_spread(taus)}, Spearman's rho {_spread(rhos)}, over {len(pairs)} architectures each")
        print(f"best found, trained alone: {_spread(ours)} %")
        print(f"best of {affordable} random networks: {_spread(theirs)} % (of {len(pairs)} that there are)")
        print(f"found less random: {_spread([one - two for one, two in zip(ours, theirs, strict=True)])} points")
        if given.go_on:
            _go_on(given.run, study, method, records)


def _shared(run: Path, method: str) -> dict[tuple[int, tuple[int, ...]], float]:
    """Scores with shared weights at the end, by trial and architecture."""
    journal = Journal(run / "journal.sqlite", writable=False)
    try:
        return {
            (each.trial, each.architecture): each.evaluation.score
            for each in journal.records(method)
            if each.stage.startswith(MEASURED)  # later rounds replace earlier ones
        }
    finally:
        journal.close()


def _affordable(found: Sequence[Record], training: float) -> int:
    """How many random networks could be trained in the time of a search and of the training of what it found."""
    search = found[0].evaluation.metrics["training"] + found[0].evaluation.metrics["choosing"]
    return int((search + len(found) * training) / training)


def best_of(scores: Sequence[float], count: int) -> float:
    """The mean, over all draws of so many scores, of the best; of all scores, where there are no more."""
    ordered, n = sorted(scores), len(scores)
    count = min(count, n)
    return sum(math.comb(k, count - 1) * score for k, score in enumerate(ordered)) / math.comb(n, count)


def _go_on(run: Path, study: SupernetStudy, method: str, records: Sequence[Record]) -> None:
    """What the first network of each search comes to, from shared weights and from fresh ones."""
    task = study.truth
    assert isinstance(task, TrainedTask)
    differences, ends = [], []
    for record in (each for each in records if each.slot == 0):
        seed = derive_seed(study.seed + record.trial, "supernet")
        start = FoundSupernet(run, study, method, record.trial).start(task, record.architecture, seed)

        def make(arch=record.architecture, seed=seed, state=start.state):  # type: ignore[no-untyped-def]
            return task.start(arch, seed, shared=state)

        ends.append(fit(make, task.data, task.plan(seed)).metrics[task.score])
        differences.append(ends[-1] - record.evaluation.metrics["stand_alone"])
    print(f"the first found, trained from shared weights: {_spread(ends)} %, {_spread(differences)} points above fresh")


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation} ({', '.join(f'{value:.2f}' for value in values)})"


if __name__ == "__main__":
    main()
