"""A second classifier halfway up a network, whose loss helps to train what lies below it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.cells import Norm

_WINDOW = 5
"""Side of the pooling's window."""
_MIDDLE, _WIDE = 128, 768
"""Channels of the head's two convolutions."""


class AuxiliaryHead(nn.Module):
    """The auxiliary head of DARTS' and GDAS' final networks (their public code).

    A network that has one keeps it as ``auxiliary`` (None without) and gives both logits by
    ``with_auxiliary(images)``; `ClassificationModule` then trains both. Its own ``forward`` leaves the head out, and so
    does what is exported. It is a pooling, two convolutions and a linear layer.

    The head was made for maps of 8 x 8 pixels (stride 3, CIFAR) and 7 x 7 (stride 2, ImageNet), which it pools to
    2 x 2. Smaller maps are pooled to that too; of larger ones the mean over all places goes to the classifier.

    Args:
        channels: of the map that it reads.
        num_classes: outputs.
        stride: of the pooling.
        norm: builds the normalisation layers.
    """

    def __init__(self, channels: int, num_classes: int, stride: int = 3, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        self.stride = stride
        self.features = nn.Sequential(
            nn.Conv2d(channels, _MIDDLE, 1, bias=False),
            norm(_MIDDLE),
            nn.ReLU(),
            nn.Conv2d(_MIDDLE, _WIDE, 2, bias=False),
            norm(_WIDE),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(_WIDE, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to logits ``[batch, num_classes]``."""
        x = functional.relu(x)
        large = min(x.shape[-2:]) >= _WINDOW + self.stride
        x = functional.avg_pool2d(x, _WINDOW, self.stride) if large else functional.adaptive_avg_pool2d(x, 2)
        return self.classifier(self.features(x).mean(dim=(2, 3)))
