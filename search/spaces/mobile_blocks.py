"""Mobile networks of elastic inverted residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_modules.networks.elastic_mobile import ElasticMobileNetwork, MobileStage
from search.spaces.declared import DeclaredSpace
from search.spaces.head import Head


class MobileBlocks(DeclaredSpace):
    """Width and depth of each of five stages, kernel and expansion of each layer.

    The stages' largest widths, strides and depths are those of Once-for-all's MobileNetV3 (Cai et al., ICLR 2020), the
    smaller widths two thirds and five sixths of these to multiples of 8; the choices of kernel and depth are
    Once-for-all's, those of expansion too but for 4. As a layer that is not there has no choices, there are
    2 * (6^2 + 6^3 + 6^4) * (3 * (6^2 + 6^3 + 6^4))^4 = 1,440,024,218,843,682,816 networks,
    of 1,270,640 to 3,602,392 parameters for 1000 classes.

    Args:
        widths: of each stage, its choices.
        depths: the choices of every stage.
        strides: of the first layer of each stage.
        kernels: of each layer.
        expansions: of each layer.
        stem: channels of the first convolution.
        stem_stride: of the same: 1 for small images.
        last: channels of the last convolution.

    Raises:
        ValueError: there are not as many strides as widths.
    """

    name = "mobile_blocks"
    looked_at = "meta"

    def __init__(
        self,
        widths: Sequence[Sequence[int]] = ((16, 24), (24, 32, 40), (56, 64, 80), (72, 96, 112), (104, 136, 160)),
        depths: Sequence[int] = (2, 3, 4),
        strides: Sequence[int] = (2, 2, 2, 1, 2),
        kernels: Sequence[int] = (3, 5, 7),
        expansions: Sequence[int] = (3, 6),
        stem: int = 16,
        stem_stride: int = 2,
        last: int = 960,
    ):
        if len(widths) != len(strides):
            raise ValueError(f"{self.name}: widths are of {len(widths)} stages, strides of {len(strides)}")
        self.stages = tuple(
            MobileStage(tuple(own), tuple(depths), stride) for own, stride in zip(widths, strides, strict=True)
        )
        self.kernels, self.expansions = tuple(kernels), tuple(expansions)
        self.stem, self.stem_stride, self.last = stem, stem_stride, last

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Two stages of up to two narrow layers."""
        return {
            "widths": [[2, 4], [4, 6]],
            "depths": [1, 2],
            "strides": [1, 2],
            "kernels": [3, 5],
            "expansions": [1, 2],
            "stem": 4,
            "last": 8,
        }

    def network(self, head: Head) -> nn.Module:
        """The network with its choices; 1000 classes by default."""
        return ElasticMobileNetwork(
            self.stages, self.kernels, self.expansions, self.stem, self.stem_stride, self.last,
            head.classes_or(1000), head.in_channels,
        )  # fmt: skip
