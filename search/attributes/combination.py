"""Several attributes as one: a weighted sum of what their ranks say.

Proxies have scales that have nothing in common, so it is ranks that are combined. AZ-NAS adds their logarithms, which
makes one bad rank weigh more than one good one (Lee and Ham, CVPR 2024, eq. 8). Weights can be fitted on tasks whose
accuracies are known, and kept in a small file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import numpy as np

SCALES = ("log", "normal")


@dataclass(frozen=True)
class Combination:
    """Which attributes, and how their ranks are combined.

    Attributes:
        members: names of the attributes, each with weight 1.
        weights: a weight for each instead, by name.
        file: a JSON file that `save_weights` has written, instead of both.
        scale: what of ranks is added, ``log`` or ``normal``; see `rank_scores`. A file says its own.

    Raises:
        ValueError: none or several of ``members``, ``weights`` and ``file`` are there, or there is no such scale.
        OSError: there is no such file.
    """

    members: Optional[list[str]] = None  # noqa: UP045 - jsonargparse reads it on Python 3.10
    weights: Optional[dict[str, float]] = None  # noqa: UP045
    file: Optional[str] = None  # noqa: UP045
    scale: str = "log"

    def __post_init__(self) -> None:
        """Refuse what can't be combined."""
        if sum(each is not None for each in (self.members, self.weights, self.file)) != 1:
            raise ValueError("a combination has one of: members, weights, file")
        if self.scale not in SCALES:
            raise ValueError(f"scale is '{self.scale}', allowed: {', '.join(SCALES)}")
        if not self.parts:
            raise ValueError("a combination has at least one member")

    @cached_property
    def _content(self) -> tuple[dict[str, float], str]:
        if self.file is not None:
            return read_weights(self.file)
        return dict(self.weights or dict.fromkeys(self.members or (), 1.0)), self.scale

    @property
    def parts(self) -> dict[str, float]:
        """The weight of each attribute by name."""
        return self._content[0]

    def of(self, values: Mapping[str, np.ndarray], pool: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """The combination: float64 ``[n]``, higher is presumably better.

        Args:
            values: by attribute ``[n]``, higher is presumably better; NaN counts as the worst.
            pool: the architectures among which these rank, by attribute ``[m]``; None for themselves.
        """
        weights, scale = self._content
        total = np.zeros(len(next(iter(values.values()))))
        for name, weight in weights.items():
            total += weight * rank_scores(values[name], None if pool is None else pool[name], scale)
        return total


def rank_scores(values: np.ndarray, pool: np.ndarray | None = None, scale: str = "log") -> np.ndarray:
    """What the rank of each value is worth: 0 for the highest by ``log``, about 2 to -2 of a hundred by ``normal``.

    With ``r`` the rank among ``m``, 1 for the lowest and ties in the middle, it is the logarithm of ``r / m``, or the
    quantile of the normal distribution at ``(r - 1/2) / m``.

    Args:
        values: ``[n]``; NaN ranks below everything.
        pool: ``[m]``, what to rank among; None for the values themselves. A value outside of the pool ranks halfway
            between its neighbours there.
        scale: one of `SCALES`.
    """
    own, among = _known(values), _known(values if pool is None else pool)
    order = np.sort(among)
    below, upto = np.searchsorted(order, own, "left"), np.searchsorted(order, own, "right")
    ranks = np.where(upto > below, (below + 1 + upto) / 2, below + 0.5)
    if scale == "log":
        return np.log(ranks / len(order))
    from scipy.special import ndtri

    return ndtri(np.clip(ranks - 0.5, 0.25, len(order) - 0.25) / len(order))


def fit_weights(
    sources: Sequence[tuple[Mapping[str, np.ndarray], np.ndarray]], scale: str = "log", penalty: float = 0.01
) -> dict[str, float]:
    """Weights with which the combination follows what is known of source tasks: a ridge regression on ranks.

    Args:
        sources: for each task the values of every attribute, by name ``[n]``, higher presumably better, and the
            accuracies ``[n]``; NaN accuracies are left out. Every task counts the same.
        scale: as for `Combination`.
        penalty: of the squared weights, against the mean over architectures of the squared error.

    Returns:
        By name, rounded to six digits.
    """
    names = list(sources[0][0])
    square, product = np.zeros((len(names), len(names))), np.zeros(len(names))
    for values, truth in sources:
        known = ~np.isnan(truth)
        columns = np.stack([rank_scores(np.asarray(values[name])[known], None, scale) for name in names], axis=1)
        columns -= columns.mean(0)
        wanted = rank_scores(np.asarray(truth)[known], None, "normal")
        square += columns.T @ columns / len(columns)
        product += columns.T @ (wanted - wanted.mean()) / len(columns)
    ridge = penalty * np.eye(len(names))
    weights = np.linalg.solve(square / len(sources) + ridge, product / len(sources))
    return {name: round(float(weight), 6) for name, weight in zip(names, weights, strict=True)}


def save_weights(path: str | Path, weights: Mapping[str, float], scale: str, fitted_on: Sequence[str]) -> None:
    """Keep weights in a JSON file, with the names of the tasks that they were fitted on."""
    content = {"weights": dict(weights), "scale": scale, "fitted_on": list(fitted_on)}
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_weights(path: str | Path) -> tuple[dict[str, float], str]:
    """Weights by name, and their scale.

    Raises:
        OSError: there is no such file.
        ValueError: it is no file of weights.
    """
    try:
        content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        weights, scale = {str(name): float(weight) for name, weight in content["weights"].items()}, content["scale"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of weights (search.attributes.combination.save_weights)") from error
    if scale not in SCALES:
        raise ValueError(f"{path}: scale is {scale!r}, allowed: {', '.join(SCALES)}")
    return weights, scale


def _known(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
