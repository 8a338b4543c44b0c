"""The spaces of AutoFormer (Chen et al., ICCV 2021): vision transformers of elastic width, heads, ratio and depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.elastic_transformer import ElasticTransformer
from search.spaces.declared import DeclaredSpace
from search.spaces.head import OWN_HEAD, Head


class AutoFormer(DeclaredSpace):
    """The width and the depth of a vision transformer, and the heads and the feed-forward ratio of each block.

    The defaults are the ranges of AutoFormer-Tiny (``experiments/supernet/supernet-T.yaml`` of its published code).
    Queries, keys and values have 64 features a head, so 3 and 4 heads are the 192 and 256 of the paper's "Q-K-V dim".
    With a block that is not there having no choices, there are 3 * (4^12 + 4^13 + 4^14) = 1,056,964,608 networks, of
    5,273,512 to 10,409,272 parameters for 1000 classes.

    Args:
        features: of which one holds for all blocks.
        ratios: of which each block has one.
        heads: likewise.
        depths: numbers of blocks.
        head_features: of each head.
        patch: height and width of a patch in pixels; images are multiples of it.
        resolution: of the images.

    Raises:
        ValueError: the resolution is no multiple of the patch.
    """

    name = "autoformer"
    looked_at = "meta"

    def __init__(
        self,
        features: Sequence[int] = (192, 216, 240),
        ratios: Sequence[float] = (3.5, 4.0),
        heads: Sequence[int] = (3, 4),
        depths: Sequence[int] = (12, 13, 14),
        head_features: int = 64,
        patch: int = 16,
        resolution: int = 224,
    ):
        if resolution % patch:
            raise ValueError(f"{self.name}: resolution is {resolution}, a multiple of the patch, {patch}, is needed")
        self.ranges = (tuple(features), tuple(map(float, ratios)), tuple(heads), tuple(depths))
        self.head_features, self.image_multiple, self.resolution = head_features, patch, resolution

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Up to two blocks of a few features."""
        return {
            "features": [4, 6],
            "ratios": [1.5, 2.0],
            "heads": [1, 2],
            "depths": [1, 2],
            "head_features": 2,
            "patch": 8,
            "resolution": 32,
        }

    def example_input(self, head: Head = OWN_HEAD) -> Tensor:
        """Four images of zeros."""
        return torch.zeros(4, head.in_channels, self.resolution, self.resolution)

    def network(self, head: Head) -> nn.Module:
        """The transformer with its choices; 1000 classes by default."""
        return ElasticTransformer(
            *self.ranges, self.head_features, self.image_multiple, self.resolution, head.classes_or(1000),
            head.in_channels,
        )  # fmt: skip
