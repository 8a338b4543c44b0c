"""Cells of operations on edges, and the fixed networks that repeat them.

NAS-Bench-201 and the micro space of TransNAS-Bench-101 share these operations. A cell is any module that maps one
feature map to another, so a supernet reuses both network skeletons by handing in its own cell builder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""Channels to a normalisation layer. A supernet hands in one without running statistics."""


class Zero(nn.Module):
    """No connection: a zero feature map. Cells recognise it and leave the edge out.

    Args:
        out_channels: channels of the zero map.
        stride: how far the resolution falls.
    """

    def __init__(self, out_channels: int, stride: int = 1):
        super().__init__()
        self.out_channels, self.stride = out_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to zeros ``[batch, out_channels, height / stride, width / stride]``."""
        height, width = (-(-size // self.stride) for size in x.shape[2:])
        return x.new_zeros(x.shape[0], self.out_channels, height, width)


class ReLUConvNorm(nn.Sequential):
    """ReLU, convolution without bias, normalisation: "same" padding for odd kernels."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, norm: Norm = nn.BatchNorm2d):
        super().__init__(
            nn.ReLU(),  # not in place: the input is shared with the other edges that leave its node
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
            norm(out_channels),
        )


class FactorizedReduce(nn.Module):
    """A skip connection that halves the resolution or changes the channels.

    Half of the output channels see the even pixels and half the odd ones, each through its own 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        halves = (out_channels // 2, out_channels - out_channels // 2)
        self.even, self.odd = (nn.Conv2d(in_channels, half, 1, stride, bias=False) for half in halves)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, height / stride, width / stride]``."""
        x = nn.functional.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


def _skip(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return FactorizedReduce(in_channels, out_channels, stride, norm)


def _average_pool(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
    if in_channels != out_channels:
        raise ValueError(f"avg_pool_3x3 keeps its channels, it cannot turn {in_channels} into {out_channels}")
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


OPERATIONS: dict[str, Callable[[int, int, int, Norm], nn.Module]] = {
    "none": lambda in_channels, out_channels, stride, norm: Zero(out_channels, stride),
    "skip_connect": _skip,
    "nor_conv_1x1": lambda in_channels, out_channels, stride, norm: ReLUConvNorm(
        in_channels, out_channels, 1, stride, norm
    ),
    "nor_conv_3x3": lambda in_channels, out_channels, stride, norm: ReLUConvNorm(
        in_channels, out_channels, 3, stride, norm
    ),
    "avg_pool_3x3": _average_pool,
}
"""Operation name to its constructor of (in_channels, out_channels, stride, norm), in NAS-Bench-201's order."""


def build_operation(
    name: str, channels: int, out_channels: int | None = None, stride: int = 1, norm: Norm = nn.BatchNorm2d
) -> nn.Module:
    """The operation of that name, freshly initialised.

    Args:
        name: a key of `OPERATIONS`.
        channels: of the input.
        out_channels: of the output; as many as the input's by default.
        stride: 1 or 2.
        norm: builds the normalisation layers.
    """
    return OPERATIONS[name](channels, channels if out_channels is None else out_channels, stride, norm)


@lru_cache(maxsize=4096)
def cell_plan(connected: tuple[bool, ...], unused: bool = False) -> tuple[tuple[tuple[int, int], ...], ...]:
    """What a cell must compute, node by node.

    Args:
        connected: whether each edge carries anything, in the order 1<-0, 2<-0, 2<-1, 3<-0, ...
        unused: whether to compute nodes that do not reach the last one too.

    Returns:
        For every node after the input, the (source node, edge) pairs to add up; empty for a node without input, and
        for one that is not computed because nothing follows from it.

    Raises:
        ValueError: no number of nodes has that many edges.
    """
    nodes = 1
    while nodes * (nodes - 1) // 2 < len(connected):
        nodes += 1
    if nodes < 2 or nodes * (nodes - 1) // 2 != len(connected):
        raise ValueError(f"a cell of n nodes has n (n - 1) / 2 edges (1, 3, 6, 10, ...), not {len(connected)}")
    incoming = [
        tuple(
            (source, target * (target - 1) // 2 + source)
            for source in range(target)
            if connected[target * (target - 1) // 2 + source]
        )
        for target in range(1, nodes)
    ]
    needed = {nodes - 1}
    for target in range(nodes - 1, 0, -1):
        if target in needed:
            needed.update(source for source, _ in incoming[target - 1])
    return tuple(pairs if unused or target in needed else () for target, pairs in enumerate(incoming, start=1))


def run_cell(
    x: Tensor,
    plan: Sequence[Sequence[tuple[int, int]]],
    message: Callable[[int, Tensor], Tensor],
    unweighted: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """The last node's feature map.

    Args:
        x: the cell's input.
        plan: of `cell_plan`.
        message: (edge, its source's feature map) to what the edge adds to its target.
        unweighted: the same without a path's weights; None where there are none.
    """
    used = {source for pairs in plan for source, _ in pairs} | {len(plan)}
    nodes: list[Tensor | None] = [x]
    for target, pairs in enumerate(plan, start=1):
        total: Tensor | None = None
        for source, edge in pairs:
            added = message(edge, nodes[source])  # type: ignore[arg-type]  # what another node reads was computed
            total = added if total is None else total + added
        if total is None and target in used:
            # Not skipped further: a normalised convolution of zeros is its shift, not zero.
            total = (unweighted or message)(target * (target - 1) // 2, x)
        nodes.append(total)
    output = nodes[-1]
    assert output is not None
    return output


class Cell(nn.Module):
    """A densely connected acyclic graph: every node is the sum of one operation on each node before it.

    Edges that carry nothing cost nothing, nor do nodes that do not reach the output. Their parameters are there all
    the same, because the benchmarks count them.

    Args:
        operations: one module an edge, in the order 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2, ...
    """

    compute_unused = False
    """Whether to run the edges that cannot reach the output too, which only a count of operations needs."""

    def __init__(self, operations: Sequence[nn.Module]):
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self._connected = tuple(not isinstance(operation, Zero) for operation in operations)
        cell_plan(self._connected)  # a wrong number of edges is refused here, not in the first forward pass

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to the last node's feature map."""
        plan = cell_plan(self._connected, self.compute_unused)
        return run_cell(x, plan, lambda edge, value: self.operations[edge](value))


class ReductionBlock(nn.Module):
    """The residual block between two stages: half the resolution.

    The shortcut is 2x2 average pooling and a 1x1 convolution without normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        self.convolutions = nn.Sequential(
            ReLUConvNorm(in_channels, out_channels, 3, 2, norm), ReLUConvNorm(out_channels, out_channels, 3, 1, norm)
        )
        # Of an odd size both paths round up, so that images of any size fit.
        pooling = nn.AvgPool2d(2, 2, ceil_mode=True)
        self.shortcut = nn.Sequential(pooling, nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, height / 2, width / 2]``, rounded up."""
        return self.shortcut(x) + self.convolutions(x)


class CellNetwork(nn.Module):
    """The network of NAS-Bench-201: stem, three stages of equal cells, classifier.

    The channels are C, 2C and 4C, the resolution falls by two between stages (NAS-Bench-201, sec. 2.1). Layers keep
    torch's default initialisation, as in the benchmark.

    Args:
        build_cell: channels to a module that keeps channels and resolution.
        num_classes: outputs of the classifier.
        channels: of the stem, C.
        cells: in each stage.
        in_channels: of the images.
        norm: builds the normalisation layers outside the cells.
    """

    def __init__(
        self,
        build_cell: Callable[[int], nn.Module],
        num_classes: int,
        channels: int = 16,
        cells: int = 5,
        in_channels: int = 3,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), norm(channels))
        blocks: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            if stage:
                blocks.append(ReductionBlock(width // 2, width, norm))
            blocks.extend(build_cell(width) for _ in range(cells))
        self.body = nn.Sequential(*blocks)
        self.activation = nn.Sequential(norm(width), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, 4 * channels, height / 4, width / 4]``."""
        return self.activation(self.body(self.stem(images)))

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))


class ModuleNetwork(nn.Module):
    """The network of TransNAS-Bench-101: stem, modules of two cells, classifier.

    A digit says what the first cell of a module changes: 1 nothing, 2 doubles the channels, 3 halves the resolution,
    4 does both (TransNAS-Bench-101, public code). The stem divides the resolution by four. Convolutions start from
    He's normal initialisation by fan-out, as in the benchmark.

    Args:
        build_cell: (in_channels, out_channels, stride) to a module.
        num_classes: outputs of the classifier.
        channels: after the stem; even.
        modules: one digit a module.
        in_channels: of the images.
        norm: builds the normalisation layers of the stem.
    """

    def __init__(
        self,
        build_cell: Callable[[int, int, int], nn.Module],
        num_classes: int,
        channels: int = 64,
        modules: str = "41414",
        in_channels: int = 3,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        if not modules or set(modules) - set("1234"):
            raise ValueError(f"modules: '{modules}' must be a string of the digits 1, 2, 3 and 4, such as '41414'")
        half = channels // 2
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False),
            norm(half),
            ReLUConvNorm(half, channels, 3, 2, norm),
        )
        blocks: list[nn.Module] = []
        for digit in modules:
            width = channels * 2 if digit in "24" else channels
            blocks.append(build_cell(channels, width, 2 if digit in "34" else 1))
            blocks.append(build_cell(width, width, 1))
            channels = width
        self.body = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to the last feature map."""
        return self.body(self.stem(images))

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))
