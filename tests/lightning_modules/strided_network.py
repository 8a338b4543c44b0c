"""The smallest network with a backbone that detectors and segmentation models can take."""

from torch import Tensor, nn


class StridedBackbone(nn.Module):
    """One feature map a stage, each a convolution, normalisation and as much striding as the stage asks for."""

    in_channels = 3

    def __init__(self, channels: tuple[int, ...] = (8, 12, 16, 20), strides: tuple[int, ...] = (4, 8, 16, 32)):
        super().__init__()
        self.channels, self.strides = channels, strides
        self.stages = nn.ModuleList()
        for before, width, last, stride in zip((3, *channels), channels, (1, *strides), strides, strict=False):
            halvings = [nn.Conv2d(width, width, 3, 2, 1) for _ in range((stride // last).bit_length() - 1)]
            layers = [nn.Conv2d(before, width, 3, padding=1), *halvings, nn.BatchNorm2d(width), nn.ReLU()]
            self.stages.append(nn.Sequential(*layers))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return tuple(maps)


class StridedNetwork(nn.Module):
    """A classification network, of which only the backbone is of interest."""

    def __init__(self, num_classes: int = 3, **backbone: tuple[int, ...]):
        super().__init__()
        self.backbone, self.num_classes = StridedBackbone(**backbone), num_classes
        self.classifier = nn.Linear(self.backbone.channels[-1], max(num_classes, 1))
