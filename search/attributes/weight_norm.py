"""The norm of the weights, the cheapest baseline of proxies (NAS-Bench-Suite-Zero, NeurIPS 2022)."""

from __future__ import annotations

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy


class WeightNorm(Proxy):
    """The sum over convolutions and linear layers of the Euclidean norm of their weights, also of unused ones."""

    name = "weight norm"
    labels = False
    merges = False

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        return float(sum(layer.weight.detach().norm() for layer in probe.layers()))
