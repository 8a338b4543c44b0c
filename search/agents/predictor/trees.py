"""What forests and boosted trees have in common: scikit-learn's models, a few of each trial, whose spread is doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.agents.predictor.base import Model


class Committee(Model):
    """Several regressors a trial: their mean, and the standard deviation among them.

    Args:
        members: of each trial, fitted; what ``predict`` of them takes.
    """

    def __init__(self, members: Sequence[Sequence[Any]]):
        self._members = members

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the members."""
        means, deviations = [], []
        for trial, members in enumerate(self._members):
            asked = features[trial % len(features)].numpy()
            found = np.stack([member.predict(asked) for member in members])
            means.append(torch.from_numpy(found.mean(0)))
            deviations.append(torch.from_numpy(found.std(0)))
        return torch.stack(means).double(), torch.stack(deviations).double()
