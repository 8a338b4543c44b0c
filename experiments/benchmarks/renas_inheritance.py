"""How many epochs a child saves that begins with its parent's weights, on handwritten digits or on CIFAR-10.

    python experiments/benchmarks/renas_inheritance.py [--pairs 8] [--epochs 6] [--group 4] [--arrays cifar10.npz]

``--arrays`` trains on 100 batches of 64 of such a file's images an epoch, at 16 pixels, in the digits' place, and
validates on 1,280 of its test images.

Each pair is a random cell of RENAS, trained from fresh weights, and a child of it in which one decision of every node
has changed (RENAS; ``--group 20`` for a single change). The child is trained twice with one seed: from fresh weights,
and with those of its parent whose operation and input did not change. A row has the validation accuracy after each
epoch, as a mean over pairs; then come the epochs in which the heir reaches what its twin has at the end, and the share
of the weights that it inherits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the curves and the epochs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("pairs", 8), ("epochs", 6), ("group", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--arrays", help="images and labels, as `catchmark data` writes them; digits without it")
    parser.add_argument("--figures", type=Path, help="a folder for the curves as SVG and PDF")
    given = parser.parse_args()

    import torch

    from datamodules.arrays import ArrayDataModule
    from datamodules.digits import DigitsDataModule
    from search.agents.recurrent.mutator import Mutator
    from search.evaluation import Proposal
    from search.randomness import TrialRandom, derive_seed
    from search.reports.line_chart import Line, line_chart
    from search.reports.svg import kept_in
    from search.spaces.renas import RENAS
    from search.tasks.trained import TrainedTask

    space, build = RENAS(), {"channels": 8, "cells": 1}
    data: Any = DigitsDataModule(resolution=8, batch_size=64)
    trainer: dict[str, Any] = {}
    if given.arrays:
        data, trainer = (
            ArrayDataModule(given.arrays, batch_size=64, resolution=16),
            {"limit_train_batches": 100, "limit_val_batches": 20},
        )
    task = TrainedTask(space, data, epochs=given.epochs, build=build, threads=1, keep_weights=True, trainer=trainer)
    rng = TrialRandom(derive_seed(given.seed, "inheritance"))
    mutator = Mutator(space, rng, given.group, 1, 1, 0.1)
    parents = space.sample(rng, given.pairs)
    children, _ = mutator.mutate(parents, rng, uniform=True)
    curves: dict[str, list[list[float]]] = {"parent": [], "fresh": [], "heir": []}
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        for k, (parent, child) in enumerate(zip(parents[0].tolist(), children[0].tolist(), strict=True)):
            left = str(Path(folder, f"{k}.pt"))
            # A score that no training falls below: so every epoch is validated.
            proposals = {
                "parent": Proposal(tuple(parent), 2 * k, stop_below=-1.0, leave=left),
                "fresh": Proposal(tuple(child), 2 * k + 1, stop_below=-1.0),
                "heir": Proposal(tuple(child), 2 * k + 1, stop_below=-1.0, parent=tuple(parent), inherit=left),
            }
            for name, proposal in proposals.items():
                answer = task.evaluate_one(proposal)
                curves[name].append([epoch["val_accuracy"] for epoch in answer.history])
            one, other = (space.build(tuple(each), **build).state_dict() for each in (parent, child))
            kept = [other[key].numel() for key in other if key in one and one[key].shape == other[key].shape]
            shares.append(sum(kept) / sum(each.numel() for each in other.values()))
    print(f"torch {torch.__version__}; {given.pairs} pairs, seed {given.seed}")
    for name, rows in curves.items():
        means = [statistics.mean(row[epoch] for row in rows) for epoch in range(given.epochs)]
        print(f"{name:8}" + " ".join(f"{mean:6.2f}" for mean in means))
    with kept_in(given.figures):
        epochs, said = range(1, given.epochs + 1), {"parent": "parent", "fresh": "child, fresh", "heir": "child, heir"}
        lines = [
            Line(said[name], epochs, [statistics.mean(each) for each in zip(*rows, strict=True)], color=color)
            for color, (name, rows) in enumerate(curves.items())
        ]
        line_chart(lines, "epochs", f"validation accuracy (%), mean of {given.pairs} pairs", points=True)
    needed = [
        next((epoch for epoch, value in enumerate(heir, start=1) if value >= fresh[-1]), given.epochs + 1)
        for heir, fresh in zip(curves["heir"], curves["fresh"], strict=True)
    ]
    print(f"epochs of the heir to its twin's last accuracy: {sorted(needed)}, median {statistics.median(needed):g}")
    last = [heir[-1] - fresh[-1] for heir, fresh in zip(curves["heir"], curves["fresh"], strict=True)]
    print(f"heir less twin after {given.epochs} epochs: {statistics.mean(last):+.2f} ± {statistics.stdev(last):.2f}")
    print(f"weights inherited: {100 * statistics.mean(shares):.0f}%")


if __name__ == "__main__":
    main()
