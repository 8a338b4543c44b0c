"""The plain saliency of weights (Mozer and Smolensky, 1989), summed (Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy


class Plain(Proxy):
    """The sum of ``w dL/dw``, ``L`` the cross-entropy of a batch, over weights of convolutions and linear layers.

    A convolution with batch normalisation behind it has next to no part in the sum, for its scale changes nothing.
    """

    name = "plain saliency"

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        return float(sum((each.weight * each.gradient).sum() for each in probe.passes))
