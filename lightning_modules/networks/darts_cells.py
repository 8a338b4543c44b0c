"""The two cells of DARTS (Liu, Simonyan and Yang, ICLR 2019), the network that stacks them, and their supernet parts.

A cell reads the outputs of the two cells before it. Each of its four intermediate nodes adds up two operations on two
different nodes before it, and the cell's output is the four nodes side by side. Nodes 0 and 1 are the inputs, 2 to 5
the intermediate nodes; an *edge* is a pair of a node and one before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_modules.networks.auxiliary import AuxiliaryHead
from lightning_modules.networks.cells import FactorizedReduce, Norm, ReLUConvNorm, build_operation
from lightning_modules.networks.drop_path import DropPath
from lightning_modules.networks.supernet import PathModule, Selection

INPUTS = 2
"""Cell outputs that a cell reads."""
NODES = 4
"""Intermediate nodes of a cell (DARTS, sec. 3.1)."""
EDGES = tuple((target, source) for target in range(INPUTS, INPUTS + NODES) for source in range(target))
"""(target node, source node) of all 14 edges, in the order 2<-0, 2<-1, 3<-0, 3<-1, 3<-2, ..."""
PAIRS = tuple(tuple(itertools.combinations(range(target), 2)) for target in range(INPUTS, INPUTS + NODES))
"""For each intermediate node, the pairs of nodes that it can read, the earlier node first."""
Pairs = Sequence[Sequence[tuple[int, int]]]
"""For each intermediate node, pairs of nodes, the earlier node first."""
DECISIONS_PER_CELL = 3 * NODES
"""Each node decides its pair, the operation on the pair's first node, and that on its second."""


class SeparableConvolution(nn.Sequential):
    """ReLU, depthwise and pointwise convolution, normalisation; all of it twice, the stride in the first.

    Args:
        channels: of input and output.
        kernel: odd.
        stride: 1 or 2.
        norm: builds the normalisation layers.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, norm: Norm = nn.BatchNorm2d):
        super().__init__(
            *_depthwise_separable(channels, kernel, stride, 1, norm),
            *_depthwise_separable(channels, kernel, 1, 1, norm),
        )


class DilatedConvolution(nn.Sequential):
    """ReLU, depthwise convolution over pixels at a distance, pointwise convolution, normalisation.

    Arguments as for `SeparableConvolution`, and:
        dilation: distance of the pixels.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, norm: Norm = nn.BatchNorm2d, dilation: int = 2):
        super().__init__(*_depthwise_separable(channels, kernel, stride, dilation, norm))


def _depthwise_separable(channels: int, kernel: int, stride: int, dilation: int, norm: Norm) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),  # not in place: the input is shared with the other edges that leave its node
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm(channels),
    ]


Operations = Mapping[str, Callable[[int, int, Norm], nn.Module]]
"""Operation name to its constructor of (channels, stride, norm)."""

OPERATIONS: dict[str, Callable[[int, int, Norm], nn.Module]] = {
    "max_pool_3x3": lambda channels, stride, norm: nn.MaxPool2d(3, stride, padding=1),
    "avg_pool_3x3": lambda channels, stride, norm: build_operation("avg_pool_3x3", channels, stride=stride, norm=norm),
    "skip_connect": lambda channels, stride, norm: (
        nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, stride, norm)
    ),
    "sep_conv_3x3": lambda channels, stride, norm: SeparableConvolution(channels, 3, stride, norm),
    "sep_conv_5x5": lambda channels, stride, norm: SeparableConvolution(channels, 5, stride, norm),
    "dil_conv_3x3": lambda channels, stride, norm: DilatedConvolution(channels, 3, stride, norm),
    "dil_conv_5x5": lambda channels, stride, norm: DilatedConvolution(channels, 5, stride, norm),
}
"""Operation name to its constructor of (channels, stride, norm), in the order of DARTS' public code, less ``none``.

Pooling has no normalisation after it, as in DARTS' final network. DARTS' own search network normalises it; a supernet
of these does not, so that a path computes what the stand-alone network computes.
"""
OPERATION_NAMES = tuple(OPERATIONS)


@dataclass(frozen=True)
class NodeChoice:
    """What one intermediate node computes: an operation on each of two nodes before it.

    Attributes:
        sources: the two nodes, the earlier first.
        operations: name of the operation on each.
    """

    sources: tuple[int, int]
    operations: tuple[str, str]


def node_choices(
    choices: Sequence[int], pairs: Pairs = PAIRS, names: Sequence[str] = OPERATION_NAMES
) -> tuple[NodeChoice, ...]:
    """What the nodes of one cell compute.

    Args:
        choices: of one cell, `DECISIONS_PER_CELL` of them: pair, first operation, second operation, for each node.
        pairs: for each node, the pairs of nodes that it can read.
        names: of the operations.
    """
    nodes = []
    for node, readable in enumerate(pairs):
        pair, first, second = choices[3 * node : 3 * node + 3]
        earlier, later = readable[pair]
        nodes.append(NodeChoice((earlier, later), (names[first], names[second])))
    return tuple(nodes)


def _stride(source: int, reduction: bool) -> int:
    """A reduction cell halves the resolution where its inputs are read, not between its intermediate nodes."""
    return 2 if reduction and source < INPUTS else 1


class DARTSCell(nn.Module):
    """A cell of one architecture.

    Args:
        nodes: what each intermediate node computes.
        channels: of the inputs and of each node.
        reduction: whether the output has half the resolution.
        norm: builds the normalisation layers.
        operations: DARTS', or others.
    """

    def __init__(
        self,
        nodes: Sequence[NodeChoice],
        channels: int,
        reduction: bool,
        norm: Norm = nn.BatchNorm2d,
        operations: Operations = OPERATIONS,
    ):
        super().__init__()
        self.operations = nn.ModuleList(
            operations[name](channels, _stride(source, reduction), norm)
            for node in nodes
            for source, name in zip(node.sources, node.operations, strict=True)
        )
        self.drop_path = DropPath()
        self._sources = [node.sources for node in nodes]

    def forward(self, before_last: Tensor, last: Tensor) -> list[Tensor]:
        """Two inputs ``[batch, channels, height, width]`` to the intermediate nodes, four maps of the same channels."""
        states = [before_last, last]
        for node, (first, second) in enumerate(self._sources):
            states.append(self._term(2 * node, states[first]) + self._term(2 * node + 1, states[second]))
        return states[INPUTS:]

    def _term(self, place: int, x: Tensor) -> Tensor:
        """What an operation adds to its node: dropped now and then in training, unless it is the identity."""
        operation = self.operations[place]
        return operation(x) if isinstance(operation, nn.Identity) else self.drop_path(operation(x))


class DARTSSuperCell(PathModule):
    """A cell with every operation on every edge.

    With weights beside the choices, a node is ``w_pair * (w_first * first operation + w_second * second operation)``.
    Without choices it is the sum of that over all pairs and operations. Both sums go over the same edges: each
    operation of an edge runs once, times the sum of the weights of every term that it is in.

    Args:
        selection: of its supernet.
        first: the cell's first decision; the others follow.
        channels: of the inputs and of each node.
        reduction: whether the output has half the resolution.
        norm: builds the normalisation layers.
        pairs: for each node, the pairs of nodes that it can read.
        operations: DARTS', or others.
    """

    def __init__(
        self,
        selection: Selection,
        first: int,
        channels: int,
        reduction: bool,
        norm: Norm = nn.BatchNorm2d,
        pairs: Pairs = PAIRS,
        operations: Operations = OPERATIONS,
    ):
        super().__init__(selection)
        self.pairs = pairs
        self.operations = nn.ModuleList(
            nn.ModuleList(build(channels, _stride(source, reduction), norm) for build in operations.values())
            for _, source in EDGES
        )
        self.decisions = slice(first, first + DECISIONS_PER_CELL)
        for node, readable in enumerate(pairs):
            # [place in the pair, sources, pairs]: whether a pair reads the source in that place.
            reads = [
                [[float(pair[place] == source) for pair in readable] for source in range(INPUTS + node)]
                for place in (0, 1)
            ]
            self.register_buffer(f"reads_{node}", torch.tensor(reads), persistent=False)

    def forward(self, before_last: Tensor, last: Tensor) -> list[Tensor]:
        """Two inputs ``[batch, channels, height, width]`` to the intermediate nodes, four maps of the same channels."""
        path = self.selection.path
        choices = None if path.choices is None else path.choices[self.decisions]
        weights = None if path.weights is None else path.weights[self.decisions]
        states = [before_last, last]
        for node in range(NODES):
            own = None if weights is None else weights[3 * node : 3 * node + 3]
            if choices is None:
                assert own is not None
                states.append(self._relaxed(node, states, *own))
            else:
                states.append(self._chosen(node, states, choices[3 * node : 3 * node + 3], own))
        return states[INPUTS:]

    def _chosen(
        self, node: int, states: Sequence[Tensor], choices: Sequence[int], weights: Sequence[Tensor] | None
    ) -> Tensor:
        terms = [
            self.operations[edge_of(node, source)][operation](states[source])  # type: ignore[index]
            for source, operation in zip(self.pairs[node][choices[0]], choices[1:], strict=True)
        ]
        if weights is None:
            return terms[0] + terms[1]
        pair, one, other = (values[choice] for values, choice in zip(weights, choices, strict=True))
        return (terms[0] * one + terms[1] * other) * pair

    def _relaxed(self, node: int, states: Sequence[Tensor], pair: Tensor, first: Tensor, second: Tensor) -> Tensor:
        shares = (self.get_buffer(f"reads_{node}") * pair).sum(-1, keepdim=True)
        weights = shares[0] * first + shares[1] * second  # [sources, operations]
        total: Tensor | None = None
        for source, own in enumerate(weights.unbind()):
            for operation, weight in enumerate(own.unbind()):
                message = self.operations[edge_of(node, source)][operation](states[source]) * weight  # type: ignore[index]
                total = message if total is None else total + message
        assert total is not None
        return total

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The chosen operations' tensors, by the keys of `DARTSCell`."""
        own = choices[self.decisions]
        state: dict[str, Tensor] = {}
        for node in range(NODES):
            pair, *operations = own[3 * node : 3 * node + 3]
            for place, (source, operation) in enumerate(zip(self.pairs[node][pair], operations, strict=True)):
                module = self.operations[edge_of(node, source)][operation]  # type: ignore[index]
                prefix = f"operations.{2 * node + place}."
                state.update({f"{prefix}{key}": value for key, value in module.state_dict().items()})
        return state


def edge_of(node: int, source: int) -> int:
    """The edge from a source to the ``node``-th intermediate node, as an index of `EDGES`."""
    return node * INPUTS + node * (node - 1) // 2 + source


class Block(nn.Module):
    """A cell with what fits its inputs to it: both get the cell's channels, and the resolution of the later one.

    Args:
        cell: from two feature maps to the list of its intermediate nodes.
        before_last: channels of the output before the last one.
        last: channels of the last output.
        channels: of the cell.
        halve: whether the output before the last one has twice the last one's resolution.
        norm: builds the normalisation layers.
    """

    def __init__(self, cell: nn.Module, before_last: int, last: int, channels: int, halve: bool, norm: Norm):
        super().__init__()
        self.fit_before_last: nn.Module = (
            FactorizedReduce(before_last, channels, 2, norm)
            if halve
            else ReLUConvNorm(before_last, channels, 1, norm=norm)
        )
        self.fit_last = ReLUConvNorm(last, channels, 1, norm=norm)
        self.cell = cell

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """The last two outputs to the next, ``[batch, 4 * channels, height, width]``."""
        return torch.cat(self.cell(self.fit_before_last(before_last), self.fit_last(last)), dim=1)


class DARTSNetwork(nn.Module):
    """DARTS' network (DARTS, sec. 3.1 and appendix A.2).

    The stem for CIFAR-10 has 3 C channels; that for ImageNet has C channels and divides the resolution by four for the
    first cell's one input and by eight for the other. The cells after one and two thirds are reduction cells, which
    double the channels per node. Layers keep torch's default initialisation, as in DARTS' public code.

    Args:
        build_cell: (channels, reduction) to a module from two feature maps to the list of its intermediate nodes.
        num_classes: outputs of the classifier.
        channels: of a node of the first cells, C.
        cells: in all; with at least 3 there are normal cells too.
        in_channels: of the images.
        norm: builds the normalisation layers outside the cells.
        stem: ``cifar`` or ``imagenet``.
        auxiliary: whether a second classifier stands behind the second reduction cell; only a training uses it.

    Raises:
        ValueError: a number is out of range, or there is no such stem.
    """

    def __init__(
        self,
        build_cell: Callable[[int, bool], nn.Module],
        num_classes: int,
        channels: int = 36,
        cells: int = 20,
        in_channels: int = 3,
        norm: Norm = nn.BatchNorm2d,
        stem: str = "cifar",
        auxiliary: bool = False,
    ):
        super().__init__()
        if cells < 1:
            raise ValueError(f"cells is {cells}, it must be at least 1; 20 is DARTS' network")
        if channels < 1:
            raise ValueError(f"channels is {channels}, it must be at least 1; 36 is DARTS' network")
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem is '{stem}', allowed: cifar, imagenet")
        self.blocks = nn.ModuleList()
        before_last = last = channels if stem == "imagenet" else 3 * channels
        halve = stem == "imagenet"  # its second half, too, leaves the older of the first cell's inputs twice as large
        if stem == "imagenet":
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False),
                norm(channels // 2),
                nn.ReLU(),
                nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
                norm(channels),
            )
            self.second_stem: nn.Module = nn.Sequential(
                nn.ReLU(), nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False), norm(channels)
            )
        else:
            self.stem = nn.Sequential(nn.Conv2d(in_channels, last, 3, padding=1, bias=False), norm(last))
            self.second_stem = nn.Identity()
        for position in range(cells):
            reduction = position in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduction else 1
            self.blocks.append(Block(build_cell(channels, reduction), before_last, last, channels, halve, norm))
            before_last, last, halve = last, NODES * channels, reduction
        self.classifier = nn.Linear(last, num_classes)
        self._branch = 2 * cells // 3
        # Its input has as many channels as the last cells' outputs: nothing doubles behind it.
        self.auxiliary = AuxiliaryHead(last, num_classes, 2 if stem == "imagenet" else 3, norm) if auxiliary else None

    def _outputs(self, images: Tensor) -> Iterator[Tensor]:
        """Of every cell."""
        before_last = self.stem(images)
        last = self.second_stem(before_last)
        for block in self.blocks:
            before_last, last = last, block(before_last, last)
            yield last

    def features(self, images: Tensor) -> Tensor:
        """Of ``[batch, in_channels, height, width]``: ``[batch, 16 * channels, height / 4, width / 4]``.

        Behind the stem for ImageNet an eighth of that height and width.
        """
        for last in self._outputs(images):
            output = last
        return output

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the network and of its auxiliary head, both ``[batch, num_classes]``."""
        assert self.auxiliary is not None
        for position, last in enumerate(self._outputs(images)):
            if position == self._branch:
                auxiliary = self.auxiliary(last)
        return self.classifier(last.mean(dim=(2, 3))), auxiliary

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))
