"""Linear models beside `table.yaml`, and what a search found trained on other divisions of the same table.

The score of a search's best network is the highest of many on one set of validation rows, and so too good; in other
divisions it and a linear model are on one footing, or nearly: their rows are those of the table too. Run from the
repository's folder, with the architecture as the report prints it:

    python experiments/own_data/beside.py "depth=1|activation=relu|..."
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
from sklearn.linear_model import LinearRegression, RidgeCV

from datamodules.diabetes import DiabetesDataModule
from lightning_modules.regression import RegressionModule
from search.evaluation import Proposal
from search.spaces.mlp import MLP
from search.tasks.trained import TrainedTask

OTHERS = range(1, 11)
"""Seeds of divisions that no search has seen; the recipe's own is 0."""


def linear(make: type, seed: int) -> float:
    """The share of the validation rows' variance that a model of scikit-learn explains."""
    data = DiabetesDataModule(split_seed=seed)
    train, val = data.training_set(), data.validation_set()
    model = make().fit(train.features.numpy(), train.targets.numpy())
    return float(model.score(val.features.numpy(), val.targets.numpy()))


def network(text: str, seed: int) -> float:
    """The same of a network, trained as the recipe does."""
    space = MLP(widths=[8, 16, 32, 64, 128])
    module = partial(RegressionModule, learning_rate=3e-3, weight_decay=0.1)
    task = TrainedTask(space, DiabetesDataModule(split_seed=seed), module, epochs=30, score="val_r2", threads=1)
    return task.evaluate_one(Proposal(space.parse(text), seed=seed)).score


def show(name: str, own: float, others: Sequence[float]) -> None:
    """A line: in the recipe's division, and the mean with its standard error over others."""
    error = np.std(others, ddof=1) / len(others) ** 0.5
    print(
        f"{name}: {own:.3f} in division 0; {np.mean(others):.3f} (standard error {error:.3f}) in {len(others)} others"
    )


def main(architectures: Sequence[str]) -> None:
    """Print all of them."""
    for name, make in (("least squares", LinearRegression), ("ridge", partial(RidgeCV, alphas=np.logspace(-3, 3, 25)))):
        show(name, linear(make, 0), [linear(make, seed) for seed in OTHERS])  # type: ignore[arg-type]
    for text in architectures:
        show(text, network(text, 0), [network(text, seed) for seed in OTHERS])


if __name__ == "__main__":
    main(sys.argv[1:])
