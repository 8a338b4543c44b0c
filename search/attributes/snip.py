"""SNIP (Lee et al., ICLR 2019), summed over a network (Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy


class Snip(Proxy):
    """The sum of ``|w dL/dw|``, ``L`` the cross-entropy of a batch, over weights of convolutions and linear layers."""

    name = "SNIP"

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        return float(sum((each.weight * each.gradient).abs().sum() for each in probe.passes))
