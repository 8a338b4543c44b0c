"""How much arithmetic a network takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightning_modules.networks.cost.complexity import count_flops
from search.attributes.network import NetworkAttribute
from search.spaces.base import SearchSpace


class Flops(NetworkAttribute):
    """Multiply-accumulates of one forward pass on one image, or one word; nothing is computed to count them.

    Args:
        space: builds the networks.
        build: arguments of `SearchSpace.build_from`, such as the width; None for its defaults.
        resolution: height and width of the image in pixels.
        unused: also count edges of a cell that do not reach its output, as NAS-Bench-201 does.
    """

    name = "FLOPs"
    unit = "multiply-accumulates"
    shows_images = False

    def __init__(
        self, space: SearchSpace, build: dict[str, Any] | None = None, resolution: int = 32, unused: bool = False
    ):
        super().__init__(space, build)
        if resolution < 1:
            raise ValueError(f"resolution is {resolution}, at least 1 is needed")
        self.resolution, self.unused = resolution, unused

    def read(self, network: nn.Module) -> float:
        """Their number."""
        if self.space.reads_text:
            return float(count_flops(network, (1,), self.unused, torch.long))
        shape = (self.build.get("in_channels", 3), self.resolution, self.resolution)
        return float(count_flops(network, shape, self.unused))
