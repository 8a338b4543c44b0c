"""What each trick of FastDenseNAS costs and is worth: seconds, and rank correlation with training in full.

    python experiments/fast_dense/tricks.py experiments/fast_dense --architectures 8

The same random decoders are trained in full (``full_training.yaml``) and in two stages (``camvid_reduced.yaml``), with
all tricks and without one of them at a time. Prints Markdown: processor seconds an evaluation, and Kendall's tau of the
scores behind each stage with those of training in full. Correlations of so few decoders are rough: their interval is
that of resampled decoders.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from search.evaluation import Proposal
from search.recipes.recipe import load_recipe

_RESAMPLED = 2000

WITHOUT: dict[str, Any] = {
    "all tricks": {},
    "no auxiliary cells": {"auxiliary": 0.0},
    "no distillation": {"distillation": 0.0},
    "no Polyak averages": {"polyak": 0.0, "frozen_polyak": 0.0},
    "no precomputed features": None,
}
"""Changed arguments of the Lightning module; None where the task itself changes."""


def variant(task: Any, changes: dict[str, Any] | None) -> Any:
    """The task without a trick."""
    changed = copy.copy(task)
    if changes is None:
        changed.precompute, changed.teacher = False, None
        return changed
    wrap = task.wrap

    def wrapped(network: Any) -> Any:
        module = wrap(network)
        for name, value in changes.items():
            setattr(module, name, value)
        return module

    changed.module = wrapped
    return changed


def interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Of Kendall's tau, 95%, over resampled pairs."""
    rng, found = np.random.default_rng(0), []
    for _ in range(_RESAMPLED):
        drawn = rng.integers(len(one), size=len(one))
        found.append(kendalltau(one[drawn], other[drawn]).statistic)
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the two recipes")
    parser.add_argument("--architectures", type=int, default=8)
    parser.add_argument("--seed", type=int, default=5000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (two,), (whole,) = (
        load_recipe(arguments.folder / name)[0].targets.values()
        for name in ("camvid_reduced.yaml", "full_training.yaml")
    )
    space, seed = two.space, arguments.seed
    archs = [space.draw("tricks", seed, k) for k in range(arguments.architectures)]
    began = time.process_time()
    full = np.array([whole.evaluate_one(Proposal(arch, seed)).score for arch in archs])
    seconds = (time.process_time() - began) / len(archs)
    print(f"in full: {', '.join(f'{score:.2f}' for score in full)}; {seconds:.1f} s each\n", flush=True)
    print(
        "| | seconds | tau behind the first | tau behind the second |\n|---|---|---|---|",
        flush=True,
    )
    for name, changes in WITHOUT.items():
        task = variant(two, changes)
        if changes is not None:
            task._encoded_data()
        firsts, lasts, spent = [], [], 0.0
        for arch in archs:
            began = time.process_time()
            answer = task.evaluate_one(Proposal(arch, seed))
            spent += time.process_time() - began
            firsts.append(answer.metrics["first_stage"])
            lasts.append(answer.score)
        cells = []
        for scores in (np.array(firsts), np.array(lasts)):
            low, high = interval(scores, full)
            cells.append(f"{kendalltau(scores, full).statistic:.2f} [{low:.2f}, {high:.2f}]")
        print(f"| {name} | {spent / len(archs):.1f} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
