"""The operations of Auto-DeepLab's cells (Liu et al., CVPR 2019).

An operation is told its stride when it is called, so cells that go down, stay and go up can share its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.cells import Norm, Zero
from lightning_modules.networks.deeplab_head import resize


def halved(size: Sequence[int]) -> tuple[int, int]:
    """Height and width after a stride of 2."""
    return -(-size[0] // 2), -(-size[1] // 2)


class Convolution(nn.Conv2d):
    """A convolution with "same" padding and no bias; stride and dilation are those of a call.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: odd.
        groups: of the channels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 1):
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, input: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, height / stride, width / stride]``."""
        padding = dilation * (self.kernel_size[0] // 2)
        return functional.conv2d(input, self.weight, None, stride, padding, dilation, self.groups)


class Separable(nn.Module):
    """ReLU, depthwise and pointwise convolution, normalisation; all of it twice, the stride in the first.

    Args:
        channels: of input and output.
        kernel: odd.
        norm: builds the normalisation layers.
    """

    def __init__(self, channels: int, kernel: int, norm: Norm):
        super().__init__()
        self.depthwise = nn.ModuleList(Convolution(channels, channels, kernel, channels) for _ in range(2))
        self.pointwise = nn.ModuleList(Convolution(channels, channels, 1) for _ in range(2))
        self.norms = nn.ModuleList(norm(channels) for _ in range(2))

    def forward(self, x: Tensor, stride: int) -> Tensor:
        """``[batch, channels, height, width]`` to the same, ``stride`` times smaller."""
        for k, own_stride in enumerate((stride, 1)):
            x = self.norms[k](self.pointwise[k](self.depthwise[k](functional.relu(x), own_stride)))
        return x


class Atrous(nn.Module):
    """ReLU, a full convolution over every second pixel, normalisation.

    Where the resolution is halved the map is, and the convolution sees every pixel of that (the authors' code).
    Arguments as for `Separable`.
    """

    def __init__(self, channels: int, kernel: int, norm: Norm):
        super().__init__()
        self.convolution = Convolution(channels, channels, kernel)
        self.norm = norm(channels)

    def forward(self, x: Tensor, stride: int) -> Tensor:
        """``[batch, channels, height, width]`` to the same, ``stride`` times smaller."""
        if stride == 2:
            return self.norm(self.convolution(functional.relu(resize(x, halved(x.shape[2:])))))
        return self.norm(self.convolution(functional.relu(x), dilation=2))


class Skip(nn.Module):
    """The map as it is; where the resolution is halved ReLU, a 1x1 convolution and normalisation.

    Args:
        channels: of input and output.
        norm: builds the normalisation layer.
        halves: whether it is ever called with a stride of 2.
    """

    def __init__(self, channels: int, norm: Norm, halves: bool):
        super().__init__()
        self.convolution = Convolution(channels, channels, 1) if halves else None
        self.norm = norm(channels) if halves else None

    def forward(self, x: Tensor, stride: int) -> Tensor:
        """``[batch, channels, height, width]`` to the same, ``stride`` times smaller."""
        if stride == 1:
            return x
        assert self.convolution is not None and self.norm is not None
        return self.norm(self.convolution(functional.relu(x), stride))


class Pooling(nn.Module):
    """Pooling over 3x3 pixels.

    Args:
        largest: whether the largest value counts; else their mean.
    """

    def __init__(self, largest: bool):
        super().__init__()
        self.largest = largest

    def forward(self, x: Tensor, stride: int) -> Tensor:
        """``[batch, channels, height, width]`` to the same, ``stride`` times smaller."""
        if self.largest:
            return functional.max_pool2d(x, 3, stride, padding=1)
        return functional.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)


OPERATIONS: dict[str, Callable[[int, Norm, bool], nn.Module]] = {
    "zero": lambda channels, norm, halves: Zero(channels),
    "max_pool_3x3": lambda channels, norm, halves: Pooling(largest=True),
    "avg_pool_3x3": lambda channels, norm, halves: Pooling(largest=False),
    "skip": lambda channels, norm, halves: Skip(channels, norm, halves),
    "sep_conv_3x3": lambda channels, norm, halves: Separable(channels, 3, norm),
    "sep_conv_5x5": lambda channels, norm, halves: Separable(channels, 5, norm),
    "atrous_conv_3x3": lambda channels, norm, halves: Atrous(channels, 3, norm),
    "atrous_conv_5x5": lambda channels, norm, halves: Atrous(channels, 5, norm),
}
"""Operation name to its constructor of (channels, norm, whether it is ever called with a stride of 2)."""
OPERATION_NAMES = tuple(OPERATIONS)
ZERO = OPERATION_NAMES.index("zero")
