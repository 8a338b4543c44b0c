"""Layers whose sizes a path decides: each runs with the first part of the weights of its largest size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.choices.choice_module import ChoiceModule
from lightning_modules.networks.choices.value import Number, Value, at, largest, now, only_values


class ElasticConv2d(nn.Conv2d, ChoiceModule):
    """A convolution with choices of its channels and of its kernel.

    The first channels run; of a larger kernel its middle does, as in BigNAS (Yu et al., ECCV 2020; Once-for-all puts
    the middle through a learned matrix first).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: odd where a path decides it.
        stride: of the convolution.
        padding: None for what keeps the size at stride 1.
        dilation: of the kernel.
        groups: 1, or ``depthwise`` for as many as channels.
        bias: whether it adds one.

    Raises:
        ValueError: a depthwise convolution has different channels before and behind it.
    """

    def __init__(
        self,
        in_channels: Number,
        out_channels: Number,
        kernel_size: Number | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        dilation: int | tuple[int, int] = 1,
        groups: Literal[1, "depthwise"] = 1,
        bias: bool = True,
    ):
        if groups == "depthwise" and in_channels is not out_channels and in_channels != out_channels:
            raise ValueError("a depthwise convolution has one number, or one Choice, of channels")
        size = kernel_size if isinstance(kernel_size, tuple) else largest(kernel_size)
        most, out = largest(in_channels), largest(out_channels)
        depthwise = groups == "depthwise"
        super().__init__(most, out, size, stride, 0, dilation, most if depthwise else 1, bias)
        self.depthwise = depthwise
        self._in, self._out, self._kernel, self._padding = in_channels, out_channels, kernel_size, padding

    @classmethod
    def around(cls, layer: nn.Conv2d, in_channels: Number, out_channels: Number) -> ElasticConv2d:
        """A convolution's weights with choices of its channels.

        Raises:
            ValueError: it is of several groups but not depthwise, or does not pad with zeros.
        """
        depthwise = layer.groups == layer.in_channels == layer.out_channels > 1
        if (layer.groups > 1 and not depthwise) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError(f"{layer}: only plain and depthwise convolutions that pad with zeros can have choices")
        kernel, stride, padding, dilation = (  # torch says that each has any number of sides
            cast(tuple[int, int], each) for each in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
        groups: Literal[1, "depthwise"] = "depthwise" if depthwise else 1
        with torch.device("meta"):  # its weights are there already
            made = cls(in_channels, out_channels, kernel, stride, padding, dilation, groups, layer.bias is not None)
        made.weight, made.bias = layer.weight, layer.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, ...]``."""
        kernel = self._kernel if isinstance(self._kernel, tuple) else now(self._kernel)
        weight, bias = self._sliced(now(self._in), now(self._out), kernel)
        groups = len(weight) if self.depthwise else 1
        return functional.conv2d(x, weight, bias, self.stride, self._pads(kernel), self.dilation, groups)

    def _pads(self, kernel: int | tuple[int, int]) -> int | tuple[int, ...]:
        if self._padding is not None:
            return self._padding
        sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        return tuple(step * (side - 1) // 2 for side, step in zip(sides, self.dilation, strict=True))

    def _sliced(self, channels: int, out: int, kernel: int | tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        weight = self.weight[:out] if self.depthwise else self.weight[:out, :channels]
        if isinstance(kernel, int) and kernel < self.kernel_size[0]:
            edge = (self.kernel_size[0] - kernel) // 2
            weight = weight[..., edge : edge + kernel, edge : edge + kernel]
        return weight, None if self.bias is None else self.bias[:out]

    def _sizes(self, choices: Sequence[int]) -> tuple[int, int, Any]:
        kernel = self._kernel if isinstance(self._kernel, tuple) else at(self._kernel, choices)
        return at(self._in, choices), at(self._out, choices), kernel

    def values(self) -> dict[str, Value]:
        """Channels and kernel."""
        return only_values(in_channels=self._in, out_channels=self._out, kernel_size=self._kernel)

    def plain(self, choices: Sequence[int]) -> nn.Module:
        """A convolution."""
        channels, out, kernel = self._sizes(choices)
        pads: Any = self._pads(kernel)
        stride: Any = self.stride
        dilation: Any = self.dilation
        groups = out if self.depthwise else 1
        return nn.Conv2d(channels, out, kernel, stride, pads, dilation, groups, self.bias is not None)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The first channels, and the middle of the kernel."""
        return _named(*self._sliced(*self._sizes(choices)))


class ElasticLinear(nn.Linear, ChoiceModule):
    """A linear layer with choices of its features, of which the first run.

    Args:
        in_features: of the input.
        out_features: of the output.
        bias: whether it adds one.
    """

    def __init__(self, in_features: Number, out_features: Number, bias: bool = True):
        super().__init__(largest(in_features), largest(out_features), bias)
        self._in, self._out = in_features, out_features

    @classmethod
    def around(cls, layer: nn.Linear, in_features: Number, out_features: Number) -> ElasticLinear:
        """A linear layer's weights with choices of its features."""
        with torch.device("meta"):
            made = cls(in_features, out_features, layer.bias is not None)
        made.weight, made.bias = layer.weight, layer.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        return functional.linear(x, *self._sliced(now(self._in), now(self._out)))

    def _sliced(self, features: int, out: int) -> tuple[Tensor, Tensor | None]:
        return self.weight[:out, :features], None if self.bias is None else self.bias[:out]

    def values(self) -> dict[str, Value]:
        """Features before and behind it."""
        return only_values(in_features=self._in, out_features=self._out)

    def plain(self, choices: Sequence[int]) -> nn.Module:
        """A linear layer."""
        return nn.Linear(at(self._in, choices), at(self._out, choices), self.bias is not None)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The first rows and columns."""
        return _named(*self._sliced(at(self._in, choices), at(self._out, choices)))


class LearnedTensor(nn.Module):
    """A tensor that is learned, such as embeddings of positions.

    Args:
        *shape: of it.
        std: of its normal initialisation, cut off at two units.
    """

    def __init__(self, *shape: int, std: float = 0.02):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.trunc_normal_(self.weight, std=std)

    def forward(self) -> Tensor:
        """The tensor."""
        return self.weight


class ElasticParameter(ChoiceModule):
    """A learned tensor with choices of its sides, of which the first entries are taken.

    Args:
        *shape: of it.
        std: of its normal initialisation, cut off at two units.
    """

    def __init__(self, *shape: Number, std: float = 0.02):
        super().__init__()
        self._shape, self._std = shape, std
        self.weight = nn.Parameter(torch.empty([largest(side) for side in shape]))
        nn.init.trunc_normal_(self.weight, std=std)

    def forward(self) -> Tensor:
        """The tensor."""
        return self._sliced([now(side) for side in self._shape])

    def _sliced(self, sides: Sequence[int]) -> Tensor:
        return self.weight[tuple(slice(side) for side in sides)]

    def values(self) -> dict[str, Value]:
        """Its sides."""
        return only_values(**{f"side_{number}": side for number, side in enumerate(self._shape)})

    def plain(self, choices: Sequence[int]) -> nn.Module:
        """A tensor of that size."""
        return LearnedTensor(*(at(side, choices) for side in self._shape), std=self._std)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The first entries."""
        return _named(self._sliced([at(side, choices) for side in self._shape]))


def _named(weight: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
    state = {"weight": weight.detach()}
    return state if bias is None else state | {"bias": bias.detach()}
