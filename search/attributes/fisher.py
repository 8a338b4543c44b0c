"""Fisher information of channels (Theis et al., 2018; Turner et al., ICLR 2020; Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from search.attributes.probe import LayerPass, Probe
from search.attributes.proxy import Proxy


class Fisher(Proxy):
    """What removing channels would do to the loss, to second order.

    For output channel ``c`` of a convolution or linear layer and image ``i``, ``s`` is the sum over places of the
    activation times the gradient of the batch's cross-entropy by it; the channel's information is half the mean of
    ``s^2`` over images. The value is the sum over channels, each weighted with the number of weights that feed it, as
    the published code has it.
    """

    name = "Fisher information"

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        return float(sum(information(each).sum() * each.weight[0].numel() for each in probe.passes if each.outputs))


def information(layer: LayerPass) -> Tensor:
    """The information of each output channel of a layer: ``[channels]``, summed over its calls."""
    calls = []
    for output, gradient in zip(layer.outputs, layer.output_gradients, strict=True):
        saliency = output * gradient
        per_image = saliency.flatten(2).sum(-1) if saliency.dim() > 2 else saliency
        calls.append(per_image.square().mean(0) / 2)
    return torch.stack(calls).sum(0)
