"""ZiCo (Li et al., ICLR 2023): gradients that are large and the same for every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy
from search.spaces.base import SearchSpace

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


class ZiCo(Proxy):
    """The inverse coefficient of variation of gradients over batches.

    For each weight of a convolution or linear layer, the mean over batches of the absolute gradient is divided by the
    standard deviation of the gradient over them (of the population; weights without any are left out). The value is the
    sum over layers of the logarithm of that sum over the layer's weights (ZiCo, eq. 12). The published code adds each
    batch's gradient to those before it; here each stands for itself, as in the paper.

    Args:
        space: as for `Proxy`.
        build: likewise.
        seed: likewise.
        device: likewise.
        data: likewise.
        batches: how many, at least 2.
    """

    name = "ZiCo"

    def __init__(
        self,
        space: SearchSpace,
        build: dict[str, Any] | None = None,
        seed: int = 0,
        device: str | None = None,
        data: LightningDataModule | None = None,
        batches: int = 2,
    ):
        super().__init__(space, build, seed, device, data)
        if batches < 2:
            raise ValueError(f"batches is {batches}, at least 2 are needed to see gradients vary")
        self.batches = batches

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        total = 0.0
        for layer in zip(*(probe.gradients(number) for number in range(self.batches)), strict=True):
            gradients = torch.stack(layer)
            deviation = gradients.std(0, correction=0)
            ratio = gradients.abs().mean(0)[deviation > 0] / deviation[deviation > 0]
            total += float(ratio.sum().log()) if ratio.sum() > 0 else 0.0
        return total if total else float("nan")
