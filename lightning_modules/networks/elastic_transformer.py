"""A vision transformer whose width, heads, feed-forward ratios and depth a path decides (AutoFormer)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.choices.attention import SelfAttention
from lightning_modules.networks.choices.elastic import ElasticConv2d, ElasticLinear, ElasticParameter
from lightning_modules.networks.choices.elastic_norms import ElasticLayerNorm
from lightning_modules.networks.choices.operations import DepthChoice
from lightning_modules.networks.choices.value import Choice, Number


class TransformerBlock(nn.Module):
    """Attention and a feed-forward part, each behind a normalisation and added to its input.

    Args:
        features: of the sequence.
        heads: of the attention.
        head_features: of each head.
        ratio: features inside of the feed-forward part, as a multiple of ``features``.
    """

    def __init__(self, features: Choice, heads: Number, head_features: int, ratio: Choice):
        super().__init__()
        self.norm, self.attention = ElasticLayerNorm(features), SelfAttention(features, heads, head_features)
        self.second_norm = ElasticLayerNorm(features)
        self.widen, self.narrow = ElasticLinear(features, features * ratio), ElasticLinear(features * ratio, features)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, time, features]`` to the same shape."""
        x = x + self.attention(self.norm(x))
        return x + self.narrow(functional.gelu(self.widen(self.second_norm(x))))


class ElasticTransformer(nn.Module):
    """Patches, embeddings of their positions, blocks, and a classifier behind the mean over all patches.

    Args:
        features: of which one is chosen for all blocks.
        ratios: of the feed-forward part, of which one is chosen for each block.
        heads: likewise.
        depths: of which one is chosen.
        head_features: of each head.
        patch: height and width of a patch in pixels.
        resolution: of the images that embeddings are learned for; those of other sizes are interpolated.
        num_classes: that it tells apart.
        in_channels: of the images.
    """

    def __init__(
        self,
        features: Sequence[int],
        ratios: Sequence[float],
        heads: Sequence[int],
        depths: Sequence[int],
        head_features: int,
        patch: int,
        resolution: int,
        num_classes: int,
        in_channels: int,
    ):
        super().__init__()
        self.patch, self.side = patch, resolution // patch
        width, depth = Choice(features, "features"), Choice(depths, "depth")
        self.embed = ElasticConv2d(in_channels, width, patch, patch, padding=0)
        self.positions = ElasticParameter(1, width, self.side, self.side)
        self.blocks = DepthChoice(
            [
                TransformerBlock(
                    width,
                    Choice(heads, f"block {number} heads"),
                    head_features,
                    Choice(ratios, f"block {number} ratio"),
                )
                for number in range(1, max(depths) + 1)
            ],
            depth,
        )
        self.norm, self.classifier = ElasticLayerNorm(width), ElasticLinear(width, num_classes)
        self.initialise()

    def initialise(self) -> None:
        """Linear layers start from a normal distribution cut off at two units, as is usual for transformers."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``.

        Raises:
            ValueError: the sides are no multiples of a patch's.
        """
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ValueError(f"images are {height}x{width} pixels, both must be divisible by {self.patch}")
        x, positions = self.embed(images), self.positions()
        if x.shape[-2:] != positions.shape[-2:]:
            positions = functional.interpolate(positions, size=x.shape[-2:], mode="bilinear")
        x = torch.flatten(x + positions, 2).transpose(1, 2)
        return self.classifier(self.norm(self.blocks(x)).mean(1))
