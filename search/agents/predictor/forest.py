"""A random forest over encoded architectures."""

from __future__ import annotations

from typing import Any

from search.agents.predictor.base import Examples, Model, Predictor
from search.agents.predictor.encodings import Encoding, OneHotEncoding, PathEncoding
from search.agents.predictor.trees import Committee


class RandomForest(Predictor):
    """A random forest (Breiman, 2001); the spread of its trees is its doubt (SMAC, Hutter et al., 2011).

    Args:
        trees: of the forest. scikit-learn's default.
        share: of the columns, looked at for each split (assumed; scikit-learn's default is all of them, with which
            trees differ little).
        refit: evaluations between two fits.
    """

    def __init__(self, trees: int = 100, share: float = 0.3, refit: int = 1):
        if trees < 1 or refit < 1 or not 0 < share <= 1:
            raise ValueError(
                f"RandomForest: trees is {trees}, refit {refit}, share {share}; at least 1, 1, and in (0, 1]"
            )
        self.trees, self.share, self.refit = trees, share, refit

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Few trees, seldom."""
        return {"trees": 5, "refit": 8}

    def encodings(self) -> list[Encoding]:
        """Decisions and paths."""
        return [OneHotEncoding(), PathEncoding(counts=True)]

    def fit(self, examples: Examples) -> Model:
        """A forest a trial."""
        from sklearn.ensemble import RandomForestRegressor

        forests = []
        for features, targets, seed in zip(examples.features, examples.targets, examples.seeds, strict=True):
            forest = RandomForestRegressor(self.trees, max_features=self.share, random_state=seed)
            # Trees are asked one by one and past the forest's checks of its input, which take longer than a tree.
            forests.append([tree.tree_ for tree in forest.fit(features.numpy(), targets.numpy()).estimators_])
        return Committee([[_Tree(tree) for tree in forest] for forest in forests])


class _Tree:
    """A fitted tree."""

    def __init__(self, tree: Any):
        self._tree = tree

    def predict(self, features: Any) -> Any:
        """Float32 ``[m, columns]`` to ``[m]``."""
        return self._tree.predict(features)[:, 0]
