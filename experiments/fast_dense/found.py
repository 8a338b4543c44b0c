"""Is a search in two stages worth more than one that trains every candidate in full, at equal time?

    python experiments/fast_dense/found.py runs/camvid_reduced/latest runs/full_training/latest --seeds 2

What each agent found in each trial of both runs is trained in full, as the second run trains, with seeds that no search
has had. Prints Markdown: how many candidates a search looked at, and the reward of what it found, as a mean over seeds
for each trial. Random decoders that are trained alike stand below.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from search.evaluation import Architecture, Proposal
from search.randomness import derive_seed
from search.recipes.recipe import load_recipe
from search.recipes.trust import granted
from search.runs.journal import Journal
from search.studies.experiment import Experiment
from search.tasks.trained import TrainedTask


def main() -> None:
    """Read, train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("two_stages", type=Path)
    parser.add_argument("in_full", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--random", type=int, default=3, help="random decoders to train as well")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[int, tuple[int, Architecture]]] = {}
    for run in (given.two_stages, given.in_full):
        study, _ = load_recipe(run / "config.yaml", trust=granted())
        assert isinstance(study, Experiment)
        found |= {f"{run.parent.name}, {name}": best for name, best in _best(run, study).items()}
    (task,) = study.targets.values()
    assert isinstance(task, TrainedTask)
    print("| search | candidates | reward trained in full, each trial | mean |\n|---|---|---|---|")
    for name, trials in found.items():
        counts = " and ".join(str(count) for count, _ in trials.values())
        _row(name, counts, [_trained(task, architecture, given.seeds) for _, architecture in trials.values()])
    drawn = [study.space.draw("found", k) for k in range(given.random)]
    _row("random decoders", "", [_trained(task, architecture, given.seeds) for architecture in drawn])


def _best(run: Path, study: Experiment) -> dict[str, dict[int, tuple[int, Architecture]]]:
    """By agent and trial: how many candidates, and the best of them."""
    found: dict[str, dict[int, tuple[int, Architecture]]] = {}
    journal = Journal(run / "journal.sqlite", writable=False)
    try:
        for target in study.targets:
            for agent in study.agent_names:
                records = [each for each in journal.records(f"{target}/{agent}") if each.evaluation.status == "ok"]
                for trial in range(study.trials):
                    own = [each for each in records if each.trial == trial]
                    best = max(own, key=lambda each: each.evaluation.score)
                    found.setdefault(agent, {})[trial] = (len(own), best.architecture)
    finally:
        journal.close()
    return found


def _trained(task: TrainedTask, architecture: Architecture, seeds: int) -> float:
    own = [derive_seed("found", seed) for seed in range(seeds)]
    return statistics.mean(task.evaluate_one(Proposal(architecture, seed)).score for seed in own)


def _row(name: str, counts: str, scores: list[float]) -> None:
    listed = ", ".join(f"{score:.2f}" for score in scores)
    print(f"| {name} | {counts} | {listed} | {statistics.mean(scores):.2f} |", flush=True)


if __name__ == "__main__":
    main()
