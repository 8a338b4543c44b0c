"""The norm of the gradient (Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy


class GradientNorm(Proxy):
    """The sum over convolutions and linear layers of the Euclidean norm of the cross-entropy's gradient by the weights.

    One norm a layer, as published; biases and normalisation have no part in it.
    """

    name = "gradient norm"

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        return float(sum(each.gradient.norm() for each in probe.passes))
