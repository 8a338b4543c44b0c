"""Zen-NAS (Lin et al., ICCV 2021): how sensitive a network is to its input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from search.attributes.probe import Probe, log_or_nan
from search.attributes.proxy import Proxy
from search.spaces.base import SearchSpace

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


class Zen(Proxy):
    """The Zen-score.

    Weights are drawn from the standard normal distribution, images are Gaussian noise. The score is the logarithm of
    the mean change of the last feature map, summed over its elements, when a hundredth of other noise is added, plus,
    for each batch normalisation, the logarithm of the root of the mean variance of what it normalised (Zen-NAS,
    algorithm 1, with the absolute change of the public code).

    The last feature map is the last four-dimensional output of any module; in networks that end in a mean over places,
    what that is taken of.

    Args:
        space: as for `Proxy`.
        build: likewise.
        seed: likewise.
        device: likewise.
        data: likewise; only the size of its images matters.
        images: of noise.
        gamma: how much of other noise is added.
    """

    name = "Zen-score"
    labels = False

    def __init__(
        self,
        space: SearchSpace,
        build: dict[str, Any] | None = None,
        seed: int = 0,
        device: str | None = None,
        data: LightningDataModule | None = None,
        images: int = 32,
        gamma: float = 0.01,
    ):
        super().__init__(space, build, seed, device, data)
        if images < 2:
            raise ValueError(f"images is {images}, at least 2 are needed to normalise a batch")
        self.images, self.gamma = images, gamma

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        generator = probe.generator("zen")
        network = probe.copy()
        with torch.no_grad():
            for layer in probe.layers(network):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
                if layer.bias is not None:
                    layer.bias.zero_()
            noise, other = (probe.noise(self.images, generator) for _ in range(2))
            maps, scales = last_map(network, noise)
            changed, _ = last_map(network, noise + self.gamma * other)
            change = float((maps - changed).abs().flatten(1).sum(1).mean())
        return log_or_nan(change) + sum(log_or_nan(scale) for scale in scales)


def last_map(network: nn.Module, images: Tensor) -> tuple[Tensor, list[float]]:
    """The last feature map of a network, and the scale of what each batch normalisation got, in the order of calls.

    Args:
        network: in training mode.
        images: ``[batch, channels, height, width]``.

    Returns:
        ``[batch, ...]``; and for each normalisation the root of the mean over channels of the variance over batch and
        places, 1 where that is 0: nothing came, so nothing is scaled.
    """
    last: list[Tensor] = []
    scales: list[float] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            last[:] = [output]
        if isinstance(module, nn.BatchNorm2d):
            variance = float(inputs[0].var(dim=(0, 2, 3), correction=0).mean())
            scales.append(math.sqrt(variance) or 1.0)

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        output = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return (last[0] if last else output), scales
