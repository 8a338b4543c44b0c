"""SynFlow (Tanaka et al., NeurIPS 2020), as a zero-cost proxy (Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

import torch
from torch import nn

from search.attributes.probe import NORMS, Probe, log_or_nan
from search.attributes.proxy import Proxy


class Synflow(Proxy):
    """The logarithm of how much all weights together carry from input to output.

    All parameters are replaced by their absolute values and normalisation is taken out; of one image of ones, ``R`` is
    the sum of the outputs. The value is the logarithm of the sum of ``|w dR/dw|`` over the weights of convolutions and
    linear layers, in double precision, for ``R`` is about e^50 in NAS-Bench-201.
    """

    name = "synflow"
    labels = False

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        network = without_norms(probe.copy()).double()
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.abs_()
        layers = probe.layers(network)
        ones = torch.ones(1, *probe.image_shape, dtype=torch.float64, device=probe.device)
        weights = [layer.weight for layer in layers]
        gradients = torch.autograd.grad(network(ones).sum(), weights, allow_unused=True)
        flows = [(w * g).abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None]
        return log_or_nan(float(torch.stack(flows).detach().sum())) if flows else float("nan")


def without_norms(network: nn.Module) -> nn.Module:
    """The network, in place, with nothing where it normalised."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, NORMS):
                setattr(module, name, nn.Identity())
    return network
