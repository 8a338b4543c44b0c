"""What an exported network takes: normalised images, pictures as they are, or words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from datamodules.preprocessing import Preprocessing

Layout = Literal["nhwc", "nchw"]
LAYOUTS = ("nhwc", "nchw")


@dataclass(frozen=True)
class Inputs:
    """What a network takes.

    Attributes:
        shape: of one input.
        words: of the vocabulary, where it reads text; None for images.
        layout: of pictures, uint8, that the file itself scales and normalises; None for normalised images.
    """

    shape: tuple[int, ...]
    words: int | None = None
    layout: Layout | None = None

    @property
    def name(self) -> str:
        """What a file calls them."""
        if self.words is not None:
            return "words"
        return "images" if self.layout is None else "pictures"

    @property
    def sides(self) -> tuple[int, ...]:
        """Height and width of an image, or how many words."""
        return self.shape[:2] if self.layout == "nhwc" else self.shape[-2:]

    def random(self, count: int, seed: int) -> Tensor:
        """Some of them."""
        generator = torch.Generator().manual_seed(seed)
        if self.words is not None:
            return torch.randint(self.words, (count, *self.shape), generator=generator)
        if self.layout is not None:
            return torch.randint(256, (count, *self.shape), generator=generator, dtype=torch.uint8)
        return torch.randn(count, *self.shape, generator=generator)


class Prepared(nn.Module):
    """A network of normalised images as one of pictures.

    Args:
        network: float32 ``[batch, channels, height, width]`` to anything.
        preprocessing: whose scale, mean and deviation are applied; pictures have its colour order, and are sized.
        layout: ``nhwc``: uint8 ``[batch, height, width, channels]``, as pictures are decoded; ``nchw``: uint8
            ``[batch, channels, height, width]``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, layout: Layout):
        super().__init__()
        self.network, self.layout = network, layout
        channels = preprocessing.channels
        mean, std = preprocessing.mean or (0.0,) * channels, preprocessing.std or (1.0,) * channels
        self.scale = preprocessing.scale
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """What the network says of pictures."""
        values = pictures.permute(0, 3, 1, 2) if self.layout == "nhwc" else pictures
        return self.network((values.float() / self.scale - self.mean) / self.std)
