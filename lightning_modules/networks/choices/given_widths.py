"""Choices of width in a network that somebody else wrote: which channels belong together is found by tracing it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from lightning_modules.networks.choices.choice_module import ChoiceModule
from lightning_modules.networks.choices.elastic import ElasticConv2d, ElasticLinear
from lightning_modules.networks.choices.elastic_norms import ElasticBatchNorm2d
from lightning_modules.networks.choices.operations import DepthChoice
from lightning_modules.networks.choices.value import Choice, Number, Product

_KEEPING_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh),
    *(nn.Dropout, nn.Dropout2d, nn.Identity, nn.Upsample, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
_KEEPING = {
    *(torch.relu, torch.sigmoid, torch.tanh, torch.flatten, functional.relu, functional.relu6, functional.gelu),
    *(functional.silu, functional.hardswish, functional.hardsigmoid, functional.leaky_relu, functional.dropout),
    *(functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d, functional.avg_pool2d, functional.max_pool2d),
    *(functional.interpolate, torch.mean),
    *("relu", "relu_", "sigmoid", "tanh", "flatten", "mean", "contiguous"),
}
"""Functions and methods behind which channels are those before them."""
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


class _Analysis:
    """Which channels every layer of a network reads and writes.

    Attributes:
        layers: by their paths.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph):
        self._network = network
        self.layers: dict[str, tuple[_Channels, _Channels]] = {}
        self._of: dict[fx.Node, _Channels] = {}
        for node in graph.nodes:
            inputs = [self._of[each] for each in node.all_input_nodes if each in self._of]
            behind = self._behind(node, inputs)
            if behind is None:
                for each in inputs:
                    each.root().fixed = True
            else:
                self._of[node] = behind

    def _behind(self, node: fx.Node, inputs: list[_Channels]) -> _Channels | None:
        """The channels of what a node gives; None where nothing is known of them, or before it."""
        if node.op == "call_module":
            return self._behind_module(str(node.target), inputs)
        # All inputs must be known: a sum with what is not may have to keep its channels.
        if len(inputs) != len(node.all_input_nodes) or not inputs:
            return None
        if node.target in _ADDING:
            for each in inputs[1:]:
                inputs[0].join(each)
            return inputs[0]
        if node.target in _KEEPING and len(inputs) == 1 and _leaves_channels(node):
            return inputs[0]
        return None

    def _behind_module(self, name: str, inputs: list[_Channels]) -> _Channels | None:
        layer = self._network.get_submodule(name)
        if isinstance(layer, _KEEPING_MODULES):
            return inputs[0] if inputs else None
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, ChoiceModule):
            return self._layer(name, layer.in_channels, layer.out_channels, inputs, _keeps(layer), _stays(layer))
        if isinstance(layer, nn.Linear) and not isinstance(layer, ChoiceModule):
            return self._layer(name, layer.in_features, layer.out_features, inputs, False, False)
        if isinstance(layer, nn.BatchNorm2d):
            return self._layer(name, layer.num_features, layer.num_features, inputs, True, False)
        return None

    def _layer(
        self, name: str, before: int, behind: int, inputs: list[_Channels], keeps: bool, stays: bool
    ) -> _Channels:
        """Note a layer; a second call of the same one reads and writes the same channels."""
        channels = inputs[0] if inputs else _Channels(before, fixed=True)
        if before % channels.count:
            channels.root().fixed = True
        known = self.layers.setdefault(name, (channels, channels if keeps else _Channels(behind)))
        known[0].join(channels)
        if stays:
            for each in known:
                each.root().fixed = True
        return known[1]


def _keeps(layer: nn.Conv2d) -> bool:
    """Whether a convolution leaves its channels apart."""
    return layer.groups == layer.in_channels == layer.out_channels > 1


def _stays(layer: nn.Conv2d) -> bool:
    """Whether a convolution's channels can't be fewer."""
    odd = layer.padding_mode != "zeros" or isinstance(layer.padding, str) or type(layer) is not nn.Conv2d
    return odd or (layer.groups > 1 and not _keeps(layer))


def _leaves_channels(node: fx.Node) -> bool:
    """Whether a mean is one over the picture, and a flattening leaves the batch alone."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    rest: dict[str, Any] = dict(zip(("first", "second"), node.args[1:], strict=False)) | dict(node.kwargs)
    if name == "mean":
        dims = rest.get("dim", rest.get("first"))
        return isinstance(dims, (list, tuple)) and set(dims) <= {2, 3, -1, -2}
    return name != "flatten" or rest.get("start_dim", rest.get("first", 0)) == 1
