"""GraSP (Wang et al., ICLR 2020), summed over a network (Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy


class Grasp(Proxy):
    """Minus the sum of ``w (H g)``: how the flow of gradients would change without the weights.

    ``g`` is the gradient of a batch's cross-entropy by the weights of convolutions and linear layers, ``H`` its
    Hessian. Sign and temperature (1) are those of the published proxy.
    """

    name = "GraSP"

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        pairs = zip(probe.layers(), probe.curvature, strict=True)
        return -sum(float((layer.weight.detach() * product).sum()) for layer, product in pairs)
