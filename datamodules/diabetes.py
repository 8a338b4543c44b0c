"""The diabetes study that comes with scikit-learn: a real table without a download."""

from __future__ import annotations

from typing import Any

from datamodules.columns import Columns
from datamodules.tables import TableDataModule

_TARGET = "progression"


class DiabetesDataModule(TableDataModule):
    """Ten measurements of 442 patients, and how far their diabetes has gone a year later (Efron et al. 2004).

    Args:
        val_share: share of the rows that are for validation.
        split_seed: of the draw of these.
        batch_size: rows a step.
        num_workers: processes that make batches.
        seed: of the order; `reseed` changes it.
    """

    def __init__(
        self, val_share: float = 0.2, split_seed: int = 0, batch_size: int = 64, num_workers: int = 0, seed: int = 0
    ):
        super().__init__(_TARGET, "regression", None, ["sex"], val_share, split_seed, batch_size, num_workers, seed)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {}

    def columns(self) -> Columns:
        """The measurements as they were taken, and the target."""
        from sklearn.datasets import load_diabetes

        found = load_diabetes(scaled=False)
        cells = {name: list(map(repr, found.data[:, k].tolist())) for k, name in enumerate(found.feature_names)}
        return Columns(cells | {_TARGET: list(map(repr, found.target.tolist()))}, "scikit-learn's diabetes study")
