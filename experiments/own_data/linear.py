"""Linear models beside `table.yaml`: the same table, divided in the same way.

Run from the repository's folder: ``python experiments/own_data/linear.py``.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LinearRegression, RidgeCV

from datamodules.diabetes import DiabetesDataModule

DIVISIONS = range(11)
"""Seeds of divisions: the recipe's own, 0, and ten others."""


def main() -> None:
    """Print the share of the variance that each model explains in each division's validation rows."""
    for name, make in (("least squares", LinearRegression), ("ridge", lambda: RidgeCV(np.logspace(-3, 3, 25)))):
        found = []
        for seed in DIVISIONS:
            data = DiabetesDataModule(split_seed=seed)
            train, val = data.training_set(), data.validation_set()
            model = make().fit(train.features.numpy(), train.targets.numpy())
            found.append(model.score(val.features.numpy(), val.targets.numpy()))
        others = np.array(found[1:])
        spread = others.std(ddof=1) / len(others) ** 0.5
        print(f"{name}: {found[0]:.3f} in division 0; {others.mean():.3f} ({spread:.3f}) in ten others")


if __name__ == "__main__":
    main()
