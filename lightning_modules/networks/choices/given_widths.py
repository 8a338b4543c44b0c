"""Choices of width in a network that somebody else wrote: which channels belong together is found by tracing it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional

from lightning_modules.networks.choices.choice_module import ChoiceModule
from lightning_modules.networks.choices.elastic import ElasticConv2d, ElasticLinear
from lightning_modules.networks.choices.elastic_norms import ElasticBatchNorm2d
from lightning_modules.networks.choices.operations import DepthChoice
from lightning_modules.networks.choices.value import Choice, Number, Product

_ELEMENTWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh),
    *(nn.Dropout, nn.Identity),
)
_PICTURE_MODULES = (
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout2d, nn.Upsample),
)
_ELEMENTWISE: set[Any] = {
    *(torch.relu, torch.sigmoid, torch.tanh, functional.relu, functional.relu6, functional.gelu, functional.silu),
    *(functional.hardswish, functional.hardsigmoid, functional.leaky_relu, functional.dropout),
    *("relu", "relu_", "sigmoid", "tanh", "contiguous"),
}
"""Functions and methods behind which channels are those before them."""
_PICTURE: set[Any] = {
    *(functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d, functional.avg_pool2d, functional.max_pool2d),
    functional.interpolate,
}
"""Those of which the same is true for pictures, whose channels are the second dimension."""
_ADDING = {operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul, "add", "add_", "mul", "mul_"}
"""Those whose inputs must have the same channels."""


class _Channels:
    """Channels of one or more tensors that must be the same ones.

    Args:
        count: how many.
        fixed: whether they can't be fewer.
    """

    def __init__(self, count: int, fixed: bool = False):
        self.count, self.fixed = count, fixed
        self._into: _Channels | None = None

    def root(self) -> _Channels:
        """The group that this one has become a part of."""
        return self if self._into is None else self._into.root()

    def join(self, other: _Channels) -> None:
        """Become one group; groups of different sizes are both fixed, for one is repeated along the other."""
        one, two = self.root(), other.root()
        if one is two:
            return
        if one.count != two.count:
            one.fixed = two.fixed = True
            return
        one.fixed = one.fixed or two.fixed
        two._into = one


class _Tracer(fx.Tracer):
    """Looks into every module but torch's own and those that have choices of another kind than of depth."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Whether it is one step."""
        if isinstance(module, ChoiceModule):
            return not isinstance(module, DepthChoice)  # outside of a supernet all of its blocks run
        return super().is_leaf_module(module, name)


def with_width_choices(network: nn.Module, widths: Sequence[float], divisor: int = 1) -> nn.Module:
    """A network whose convolutions and linear layers may have fewer channels.

    Channels that must agree, such as those of the terms of a residual sum, share one decision. They are found by
    tracing the network (torch.fx): written down by hand, a group of a ResNet has a dozen names, and one that is
    forgotten is noticed by nobody before the path that needs it. What tracing can't follow keeps its width: images,
    outputs, convolutions of several groups, and whatever passes through an operation that is not known to keep the
    channels apart, such as a concatenation.

    Args:
        network: is changed; its weights stay and are those of the largest widths.
        widths: shares of the channels that there are.
        divisor: of which every width is a multiple, if the network's is.

    Returns:
        The network.

    Raises:
        ValueError: it can't be traced, or nothing in it can be narrower.
    """
    if not widths or min(widths) <= 0 or max(widths) > 1:
        raise ValueError(f"widths are {list(widths)}, shares above 0 and up to 1 are needed")
    try:
        graph = _Tracer().trace(network)
    except Exception as error:
        raise ValueError(
            f"{type(network).__name__} can't be traced ({type(error).__name__}: {error}); declare its choices inside "
            "of it"
        ) from error
    found = _Analysis(network, graph)
    choices: dict[int, Choice | None] = {}

    def number(channels: _Channels) -> Number:
        group = channels.root()
        if id(group) not in choices:
            options = sorted({_width(group.count, share, divisor) for share in widths})
            choices[id(group)] = None if group.fixed or len(options) < 2 else Choice(options)
        return choices[id(group)] or group.count

    for name, (before, behind) in found.layers.items():
        _exchange(network, name, number(before), before.count, number(behind))
    if not any(choices.values()):
        raise ValueError(f"nothing in {type(network).__name__} can be narrower")
    return network


def _width(count: int, share: float, divisor: int) -> int:
    return count if share == 1 else min(count, max(divisor, round(count * share / divisor) * divisor))


def _exchange(network: nn.Module, name: str, before: Number, count: int, behind: Number) -> None:
    """Put a layer with choices in the place of one whose channels have some."""
    owner, _, last = name.rpartition(".")
    layer = network.get_submodule(name)
    elastic: nn.Module
    if isinstance(before, int) and isinstance(behind, int):
        return
    if isinstance(layer, nn.Conv2d):
        elastic = ElasticConv2d.around(layer, before, behind)
    elif isinstance(layer, nn.Linear):
        # Of a flattened picture the places of one channel follow each other.
        places = layer.in_features // count
        features = layer.in_features if isinstance(before, int) else before if places == 1 else Product(before, places)
        elastic = ElasticLinear.around(layer, features, behind)
    else:
        assert isinstance(layer, nn.BatchNorm2d)
        elastic = ElasticBatchNorm2d(behind, layer)
    setattr(network.get_submodule(owner), last, elastic)


class _Carried(NamedTuple):
    """What is known of a tensor: its channels, and whether they are the last of its dimensions and not the second."""

    channels: _Channels
    flat: bool


class _Analysis:
    """Which channels every layer of a network reads and writes.

    Attributes:
        layers: by their paths.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph):
        self._network = network
        self.layers: dict[str, tuple[_Channels, _Channels]] = {}
        known: dict[fx.Node, _Carried] = {}
        for node in graph.nodes:
            inputs = [known[each] for each in node.all_input_nodes if each in known]
            behind = self._behind(node, inputs)
            if behind is None:
                for each in inputs:
                    each.channels.root().fixed = True
            else:
                known[node] = behind

    def _behind(self, node: fx.Node, inputs: list[_Carried]) -> _Carried | None:
        """What is known of what a node gives; None where nothing is, and what it reads must stay as it is."""
        if node.op == "call_module":
            return self._behind_module(str(node.target), inputs[0] if inputs else None)
        # All inputs must be known: a sum with what is not may have to keep its channels.
        if len(inputs) != len(node.all_input_nodes) or not inputs:
            return None
        first = inputs[0]
        if node.target in _ADDING and all(each.flat == first.flat for each in inputs):
            for each in inputs[1:]:
                first.channels.join(each.channels)
            return first
        if len(inputs) > 1:
            return None
        if node.target in _ELEMENTWISE or (node.target in _PICTURE and not first.flat):
            return first
        return None if first.flat else _flattened(node, first.channels)

    def _behind_module(self, name: str, read: _Carried | None) -> _Carried | None:
        layer = self._network.get_submodule(name)
        if isinstance(layer, _ELEMENTWISE_MODULES):
            return read
        if isinstance(layer, ChoiceModule):
            return None
        channels = _of_kind(read, flat=isinstance(layer, nn.Linear))
        if isinstance(layer, _PICTURE_MODULES):
            return None if channels is None else read
        if isinstance(layer, nn.Flatten):
            return _Carried(channels, True) if channels is not None and layer.start_dim == 1 else None
        if isinstance(layer, nn.Conv2d):
            behind = self._layer(name, layer.in_channels, layer.out_channels, channels, _keeps(layer), _stays(layer))
            return _Carried(behind, False)
        if isinstance(layer, nn.BatchNorm2d):
            return _Carried(self._layer(name, layer.num_features, layer.num_features, channels, True, False), False)
        if isinstance(layer, nn.Linear):
            return _Carried(self._layer(name, layer.in_features, layer.out_features, channels, False, False), True)
        return None

    def _layer(
        self, name: str, before: int, behind: int, read: _Channels | None, keeps: bool, stays: bool
    ) -> _Channels:
        """Note a layer; a second call of the same one reads and writes the same channels."""
        channels = _Channels(before, fixed=True) if read is None else read
        if before % channels.count:
            channels.root().fixed = True
        known = self.layers.setdefault(name, (channels, channels if keeps else _Channels(behind)))
        known[0].join(channels)
        if stays:
            for each in known:
                each.root().fixed = True
        return known[1]


def _of_kind(read: _Carried | None, flat: bool) -> _Channels | None:
    """The channels that a layer reads; of a tensor that has them in another dimension they must all stay."""
    if read is None or read.flat == flat:
        return None if read is None else read.channels
    read.channels.root().fixed = True
    return None


def _keeps(layer: nn.Conv2d) -> bool:
    """Whether a convolution leaves its channels apart."""
    return layer.groups == layer.in_channels == layer.out_channels > 1


def _stays(layer: nn.Conv2d) -> bool:
    """Whether a convolution's channels can't be fewer."""
    odd = layer.padding_mode != "zeros" or isinstance(layer.padding, str) or type(layer) is not nn.Conv2d
    return odd or (layer.groups > 1 and not _keeps(layer))


def _flattened(node: fx.Node, channels: _Channels) -> _Carried | None:
    """What is known behind a mean over a picture, or behind all places of one side by side."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    rest: dict[str, Any] = dict(zip(("first", "second"), node.args[1:], strict=False)) | dict(node.kwargs)
    if name == "mean":
        dims = rest.get("dim", rest.get("first"))
        over_picture = isinstance(dims, (list, tuple)) and sorted(dim % 4 for dim in dims) == [2, 3]
        return _Carried(channels, not rest.get("keepdim", rest.get("second", False))) if over_picture else None
    return _Carried(channels, True) if name == "flatten" and rest.get("start_dim", rest.get("first", 0)) == 1 else None
