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


def mean(values: Sequence[float]) -> str:
    """A mean with its standard error."""
    return f"{np.mean(values):.3f} ({np.std(values, ddof=1) / len(values) ** 0.5:.3f})"


def main(architectures: Sequence[str]) -> None:
    """Print each model's score in the recipe's division, its mean in others, and how far least squares are exceeded."""
    models = {"least squares": partial(linear, LinearRegression)}
    models["ridge"] = partial(linear, partial(RidgeCV, alphas=np.logspace(-3, 3, 25)))  # type: ignore[arg-type]
    models |= {text: partial(network, text) for text in architectures}
    squares = [models["least squares"](seed) for seed in OTHERS]
    for name, score in models.items():
        others = [score(seed) for seed in OTHERS]
        more = mean([mine - theirs for mine, theirs in zip(others, squares, strict=True)])
        print(
            f"{name}: {score(0):.3f}; in {len(others)} others {mean(others)}, beyond least squares {more}", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
