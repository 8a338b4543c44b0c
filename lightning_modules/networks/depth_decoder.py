"""A light decoder from the feature maps of any backbone to inverse depth.

How data walks: each feature map gets a 3x3 convolution to equal channels; from the coarsest to the finest, what came
before is enlarged to the next map's size, added to it and convolved. A head turns the last one into inverse depth at
the resolution of the image. The top-down path is that of feature pyramids (Lin et al., CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class DepthDecoder(nn.Module):
    """Feature maps to inverse depth.

    Args:
        backbone_channels: of each feature map, the finest first.
        channels: of the decoder, at least 2.

    Raises:
        ValueError: there are too few channels.
    """

    def __init__(self, backbone_channels: Sequence[int], channels: int = 64):
        super().__init__()
        if channels < 2:
            raise ValueError(f"decoder_channels is {channels}, at least 2 are needed")
        self.projections = nn.ModuleList(
            nn.Conv2d(width, channels, 3, padding=1, bias=False) for width in backbone_channels
        )
        self.fusions = nn.ModuleList(_fusion(channels) for _ in backbone_channels)
        self.reduction = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1), nn.ReLU(inplace=True))
        # Softplus, for a final ReLU can be dead from the start; the losses see neither scale nor shift.
        self.head = nn.Sequential(nn.Conv2d(channels // 2, 1, 3, padding=1), nn.Softplus())

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Inverse depth of images.

        Args:
            maps: ``[batch, backbone_channels[i], height_i, width_i]``, the finest first.
            size: height and width of the images, in pixels.

        Returns:
            ``[batch, 1, *size]``, positive, of unknown scale and shift.
        """
        layers = list(zip(self.projections, self.fusions, maps, strict=True))
        fused: Tensor | None = None
        for project, fuse, features in reversed(layers):
            skip = project(features)
            fused = fuse(skip if fused is None else skip + _enlarge(fused, skip.shape[2:]))
        assert fused is not None
        return self.head(_enlarge(self.reduction(fused), size))


class DecodedBackbone(nn.Module):
    """A backbone with a depth decoder.

    Args:
        backbone: a module with ``channels`` that gives feature maps, the finest first.
        channels: of the decoder.
    """

    def __init__(self, backbone: nn.Module, channels: int = 64):
        super().__init__()
        self.backbone = backbone
        self.decoder = DepthDecoder(backbone.channels, channels)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[batch, in_channels, height, width]`` of any size to inverse depth ``[batch, 1, height, width]``."""
        height, width = images.shape[2:]
        return self.decoder(self.backbone(images), (height, width))


def _fusion(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def _enlarge(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return nn.functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
