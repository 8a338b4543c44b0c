"""Rankings that landmarks alone make: what a supernet with the same landmarks must be above to be of use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from search.attributes.base import Attribute
from search.attributes.combination import rank_scores
from search.evaluation import Architecture
from search.spaces.base import SearchSpace

FOREST, RIDGE = "random forest on the landmarks", "ridge on the landmarks"
PROCESS = "Gaussian process on the landmarks"
_STEPS = 80
"""Of the process' fit: with so few landmarks more change nothing (assumed)."""
TOGETHER = "attributes together"
"""Where a study has several of them: `ranks_together`, nothing fitted."""


def ranks_together(columns: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of the normal quantiles of each column's ranks: float64 ``[n]`` of columns ``[n]``; NaN is the lowest."""
    return np.sum([rank_scores(np.asarray(each, dtype=np.float64), scale="normal") for each in columns], axis=0)


def operation_counts(space: SearchSpace, archs: Sequence[Architecture]) -> np.ndarray:
    """How often each architecture takes each choice, over decisions that offer the same: float64 ``[n, counts]``."""
    kinds: dict[tuple[str, ...], list[int]] = {}
    for place, decision in enumerate(space.decisions):
        kinds.setdefault(tuple(decision.choices), []).append(place)
    choices = np.array(archs)
    columns = [
        (choices[:, places] == choice).sum(1)
        for names, places in kinds.items()
        if len(places) > 1  # of one decision the one-hot code says it already
        for choice in range(len(names))
    ]
    return np.stack(columns, 1).astype(np.float64) if columns else np.zeros((len(choices), 0))


WITH_ATTRIBUTES = ", with attributes"
"""Behind the name of a model that reads attributes too."""


def landmark_predictions(
    space: SearchSpace,
    landmarks: Sequence[Architecture],
    worth: Sequence[float],
    asked: Sequence[Architecture],
    attributes: Sequence[Attribute] = (),
) -> dict[str, np.ndarray]:
    """What models fitted to the landmarks predict, by their names.

    They are fitted to normal quantiles of the ranks: accuracies have a long tail of networks that hardly learn, which
    would be all that a squared error sees.

    Args:
        space: of the architectures.
        landmarks: ``[n]``, two or more.
        worth: of each.
        asked: ``[m]``.
        attributes: what is known of architectures for nothing; where there are any, each model is there twice.

    Returns:
        For a random forest on one-hot codes; for a ridge regression on these and counts of choices, whose penalty is
        found by leave-one-out; and for a Gaussian process on decisions, subtrees and paths of the cell, as NASBOWL's
        (`search.agents.predictor.gaussian_process`): float64 ``[m]``. Attributes are further columns, as normal
        quantiles of their ranks among all architectures here; one without a value stands in the middle.
    """
    import torch
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import RidgeCV

    def one_hot(archs: Sequence[Architecture]) -> np.ndarray:
        return space.one_hot(space.canonical(torch.tensor(archs))).numpy()

    def with_counts(archs: Sequence[Architecture]) -> np.ndarray:
        canonical = [tuple(each) for each in space.canonical(torch.tensor(archs)).tolist()]
        return np.concatenate([one_hot(archs), operation_counts(space, canonical)], 1)

    everything = [*landmarks, *asked]
    columns = [each.values(torch.tensor(everything)).numpy() for each in attributes]
    extra = np.zeros((len(everything), len(columns)))
    for k, column in enumerate(columns):
        known = np.isfinite(column)
        extra[known, k] = rank_scores(column[known], scale="normal")
    forest = RandomForestRegressor(n_estimators=200, random_state=0)
    models: dict[str, tuple[Any, Callable[[Sequence[Architecture]], np.ndarray]]] = {
        FOREST: (forest, one_hot),
        RIDGE: (RidgeCV(np.logspace(-2, 3, 16)), with_counts),
    }
    quantiles, seen = rank_scores(np.asarray(worth), scale="normal"), len(landmarks)
    found = {}
    for name, (model, code) in models.items():
        codes = np.concatenate([code(landmarks), code(asked)])
        versions = {name: codes}
        if columns:
            versions[name + WITH_ATTRIBUTES] = np.concatenate([codes, extra], 1)
        for key, rows in versions.items():
            found[key] = np.asarray(model.fit(rows[:seen], quantiles).predict(rows[seen:]), dtype=np.float64)
    found[PROCESS] = process_predictions(space, landmarks, worth, asked)
    if attributes:
        found[PROCESS + WITH_ATTRIBUTES] = process_predictions(space, landmarks, worth, asked, attributes)
    return found


def process_predictions(
    space: SearchSpace,
    landmarks: Sequence[Architecture],
    worth: Sequence[float],
    asked: Sequence[Architecture],
    attributes: Sequence[Attribute] = (),
) -> np.ndarray:
    """What the Gaussian process of `landmark_predictions` predicts: float64 ``[m]``; arguments as there."""
    import torch

    from search.agents.predictor.base import Examples
    from search.agents.predictor.candidates import Columns
    from search.agents.predictor.encodings import SideBySide
    from search.agents.predictor.gaussian_process import GaussianProcess

    archs = space.canonical(torch.tensor([*landmarks, *asked]))
    targets = torch.from_numpy(rank_scores(np.asarray(worth), scale="normal"))
    process, seen = GaussianProcess(steps=_STEPS), len(landmarks)
    encoder = SideBySide([encoding.open(space, archs) for encoding in process.encodings()])
    columns = Columns(space, encoder, {str(k): each for k, each in enumerate(attributes)}, archs)
    features = columns(archs)[None]
    examples = Examples(features[:, :seen], targets[None], columns.blocks, columns.groups, (0,))
    return process.fit(examples).predict(features[:, seen:])[0][0].numpy()
