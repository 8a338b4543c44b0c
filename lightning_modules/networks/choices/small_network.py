"""A small network with a choice of every kind: what toy runs search, and an example to begin with."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.networks.choices.elastic import ElasticConv2d, ElasticLinear
from lightning_modules.networks.choices.elastic_norms import ElasticBatchNorm2d
from lightning_modules.networks.choices.operations import DepthChoice, OperationChoice
from lightning_modules.networks.choices.value import Choice, Number


class SmallBlock(nn.Module):
    """A convolution with a choice of its kernel, added to its input.

    Args:
        width: of its input and output.
    """

    def __init__(self, width: Number):
        super().__init__()
        self.convolution = ElasticConv2d(width, width, Choice([3, 5]), bias=False)
        self.norm = ElasticBatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, width, height, width]`` to the same shape."""
        return x + nn.functional.relu(self.norm(self.convolution(x)))


class SmallNetwork(nn.Module):
    """A stem, one of two operations, up to two blocks, and a classifier, of one width.

    Args:
        widths: of which one is chosen.
        num_classes: that it tells apart.
        in_channels: of the images.
    """

    def __init__(self, widths: tuple[int, ...] = (3, 4, 6, 8), num_classes: int = 10, in_channels: int = 3):
        super().__init__()
        width = Choice(widths, name="width")
        self.stem = ElasticConv2d(in_channels, width, 3, stride=2)
        self.pool = OperationChoice({"max": nn.MaxPool2d(3, 1, 1), "average": nn.AvgPool2d(3, 1, 1)})
        self.blocks = DepthChoice([SmallBlock(width) for _ in range(2)])
        self.classifier = ElasticLinear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.classifier(self.blocks(self.pool(self.stem(images))).mean((2, 3)))
