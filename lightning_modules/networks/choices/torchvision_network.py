"""A network of torchvision with choices of width and depth, by its name: what a recipe can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.choices.given_depths import with_depth_choices
from lightning_modules.networks.choices.given_widths import with_width_choices


class TorchvisionNetwork(nn.Module):
    """A classifier of torchvision, untrained, whose layers may be narrower and whose stages may be shorter.

    Args:
        model: its name in torchvision.
        widths: shares of the channels; empty for no such choices.
        divisor: of which every width is a multiple.
        depths: whether stages may have fewer blocks.
        num_classes: that it tells apart.
        in_channels: of the images.
    """

    def __init__(
        self,
        model: str = "resnet18",
        widths: Sequence[float] = (0.5, 0.75, 1.0),
        divisor: int = 8,
        depths: bool = True,
        num_classes: int = 1000,
        in_channels: int = 3,
    ):
        from torchvision.models import get_model

        super().__init__()
        network = get_model(model, weights=None, num_classes=num_classes)
        if in_channels != 3:
            _read(network, in_channels)
        if depths:
            with_depth_choices(network, torch.zeros(1, in_channels, 64, 64))
        self.network = with_width_choices(network, widths, divisor) if widths else network

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.network(images)


def _read(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution other images to read."""
    name, first = next((name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d))
    owner, _, last = name.rpartition(".")
    sizes: Any = {name: getattr(first, name) for name in ("kernel_size", "stride", "padding")}
    made = nn.Conv2d(in_channels, first.out_channels, **sizes, bias=first.bias is not None)
    setattr(network.get_submodule(owner), last, made)
