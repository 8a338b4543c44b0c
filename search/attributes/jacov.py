"""The correlation of Jacobians (Mellor et al., first version of 2020; Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

import torch

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy

_K = 1e-5
"""Keeps eigenvalues away from 0 (as published)."""


class Jacov(Proxy):
    """How little the gradients of different images correlate.

    Of each image of a batch the gradient of its summed logits is taken. With ``v`` the eigenvalues of the correlation
    matrix of these gradients, the value is minus the sum of ``log(v + k) + 1 / (v + k)``.
    """

    name = "Jacobian correlation"

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        correlation = torch.corrcoef(probe.input_gradients.double())
        if not correlation.isfinite().all():
            return float("nan")
        shifted = torch.linalg.eigvalsh(correlation) + _K
        return float(-(shifted.log() + 1 / shifted).sum())
