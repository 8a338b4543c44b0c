"""Is a recurrent cell that was found better than its wiring with other activations, and than a plain network?

    catchmark run experiments/gdas/text_reduced.yaml --runs runs
    python experiments/benchmarks/recurrent_cells.py runs/text_reduced/latest --draws 3

Reads what the run's trials found, and trains as the run did, with seeds of its own: the found cell again, the same cell
with random activations, and the baseline, a plain tanh network of as many weights. Prints perplexities (lower is
better) as mean and standard deviation over trials, beside those of the random cells that the run itself has trained.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from search.evaluation import Architecture, Proposal
from search.randomness import derive_seed
from search.recipes.recipe import load_recipe
from search.recipes.trust import granted
from search.results.found_networks import found_and_drawn
from search.spaces.recurrent import RecurrentCells
from search.studies.supernet_study import SupernetStudy
from search.tasks.trained import TrainedTask


def main() -> None:
    """Read, train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=3, help="cells with random activations a trial")
    arguments = parser.parse_args()
    study, _ = load_recipe(arguments.run / "config.yaml", trust=granted())
    assert isinstance(study, SupernetStudy) and isinstance(study.space, RecurrentCells)
    task = study.truth
    assert isinstance(task, TrainedTask)
    plain = copy.copy(task)
    plain.build = {**task.build, "cell": "tanh"}
    found, drawn = _read(arguments.run, study)
    rows: dict[str, list[float]] = {"found": [], "its wiring, random activations": [], "random cells": []}
    rows |= {"plain tanh network": []}
    for trial, architecture in sorted(found.items()):
        seed = derive_seed(study.seed + trial, "benchmark")
        same = [_other(architecture, study.seed, trial, draw) for draw in range(arguments.draws)]
        rows["found"].append(_perplexity(task, architecture, seed))
        rows["its wiring, random activations"].append(
            statistics.mean(_perplexity(task, each, derive_seed(seed, k)) for k, each in enumerate(same))
        )
        rows["random cells"].append(statistics.mean(drawn[trial]))
        rows["plain tanh network"].append(_perplexity(plain, architecture, seed))
        told = ", ".join(f"{name} {values[-1]:.3f}" for name, values in rows.items())
        print(f"trial {trial}: {study.space.format(architecture)}: {told}", flush=True)
    print(f"\nperplexity, mean and standard deviation over {len(found)} trials:")
    for name, values in rows.items():
        below = sum(ours < theirs for ours, theirs in zip(rows["found"], values, strict=True))
        said = "" if name == "found" else f"; the found cell is below it in {below} of {len(found)}"
        print(f"{name}: {_spread(values)}{said}")


def _read(run: Path, study: SupernetStudy) -> tuple[dict[int, Architecture], dict[int, list[float]]]:
    """What each trial's first method found first, and the perplexities of its random cells."""
    by_method, alone = found_and_drawn(run, study)
    found: dict[int, Architecture] = {}
    for each in next(iter(by_method.values())):
        found.setdefault(each.trial, each.architecture)
    drawn = {trial: [-each.evaluation.score for each in alone if each.trial == trial] for trial in found}
    return found, drawn


def _other(architecture: Architecture, seed: int, trial: int, draw: int) -> Architecture:
    """The same wiring with random activations."""
    drawn = RecurrentCells(len(architecture) // 2).draw(seed, "activations", trial, draw)
    return tuple(_alternating(architecture[::2], drawn[1::2]))


def _alternating(sources: Sequence[int], activations: Sequence[int]) -> Iterable[int]:
    for source, activation in zip(sources, activations, strict=True):
        yield source
        yield activation


def _perplexity(task: TrainedTask, architecture: Architecture, seed: int) -> float:
    return -task.evaluate_one(Proposal(architecture, seed)).score


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()
