"""Gradient-boosted trees over encoded architectures."""

from __future__ import annotations

from typing import Any

from search.agents.predictor.base import Examples, Model, Predictor
from search.agents.predictor.encodings import Encoding, OneHotEncoding, PathEncoding
from search.agents.predictor.trees import Committee
from search.randomness import derive_seed


class GradientBoosting(Predictor):
    """Several stochastic gradient boosting models (Friedman, 2002); their spread is their doubt.

    Args:
        members: models, each with a seed of its own (assumed).
        trees: of each model. scikit-learn's default.
        depth: of each tree. scikit-learn's default.
        learning_rate: share of each tree that is taken. scikit-learn's default.
        sample: share of the examples that each tree is fitted to (Friedman recommends half).
        share: of the columns, looked at for each split (assumed).
        refit: evaluations between two fits.
    """

    def __init__(
        self,
        members: int = 5,
        trees: int = 100,
        depth: int = 3,
        learning_rate: float = 0.1,
        sample: float = 0.5,
        share: float = 0.3,
        refit: int = 1,
    ):
        if min(members, trees, depth, refit) < 1:
            raise ValueError(
                f"GradientBoosting: members is {members}, trees {trees}, depth {depth}, refit {refit}; each must be at "
                "least 1"
            )
        self.members, self.trees, self.depth, self.refit = members, trees, depth, refit
        self.learning_rate, self.sample, self.share = learning_rate, sample, share

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Few trees, seldom."""
        return {"members": 2, "trees": 5, "refit": 8}

    def encodings(self) -> list[Encoding]:
        """Decisions and paths."""
        return [OneHotEncoding(), PathEncoding(counts=True)]

    def fit(self, examples: Examples) -> Model:
        """Some models a trial."""
        from sklearn.ensemble import GradientBoostingRegressor

        def model(seed: int) -> Any:
            return GradientBoostingRegressor(
                n_estimators=self.trees,
                max_depth=self.depth,
                learning_rate=self.learning_rate,
                subsample=self.sample,
                max_features=self.share,
                random_state=seed,
            )

        return Committee(
            [
                [
                    model(derive_seed(seed, member)).fit(features.numpy(), targets.numpy())
                    for member in range(self.members)
                ]
                for features, targets, seed in zip(examples.features, examples.targets, examples.seeds, strict=True)
            ]
        )
