"""Cells of NAS-Bench-101 (Ying et al., ICML 2019), stand-alone and with shared weights.

Here operations live on vertices. How many channels a vertex has depends on the whole graph, because the vertices that
feed the output share its channels. So shared weights are held at the largest size, and a path takes the first channels
of them (Landmark Regularization's supernet of this space).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.supernet import PathModule, Selection

OPERATION_NAMES = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""In the order of the benchmark's labels 0, 1 and 2."""


@dataclass(frozen=True)
class CellGraph:
    """A cell without the vertices that do not lie on a path from input to output.

    Vertex 0 is the input and the last one the output. Vertices keep the numbers they had in the whole graph, so that
    shared weights stay those of their position.

    Attributes:
        sources: of each vertex but the input, the vertices that it reads; empty for one that is left out.
        operations: of each vertex between input and output, an index into `OPERATION_NAMES`.
    """

    sources: tuple[tuple[int, ...], ...]
    operations: tuple[int, ...]

    @classmethod
    def of(cls, edges: Iterable[tuple[int, int]], operations: Sequence[int]) -> CellGraph:
        """The graph of (source, target) edges, pruned.

        Raises:
            ValueError: no path leads from input to output.
        """
        output = len(operations) + 1
        edges = sorted(edges)
        forward, backward = {0}, {output}
        for source, target in edges:
            if source in forward:
                forward.add(target)
        for source, target in reversed(edges):
            if target in backward:
                backward.add(source)
        if output not in forward:
            raise ValueError("a cell needs a path from input to output")
        kept = forward & backward
        return cls(
            tuple(
                tuple(source for source, end in edges if end == target and {source, end} <= kept)
                for target in range(1, output + 1)
            ),
            tuple(operations),
        )

    @property
    def output(self) -> int:
        """Number of the output vertex."""
        return len(self.sources)

    @property
    def vertices(self) -> tuple[int, ...]:
        """The vertices between input and output that are not left out."""
        return tuple(vertex for vertex in range(1, self.output) if self.sources[vertex - 1])

    @property
    def projected(self) -> tuple[int, ...]:
        """The vertices that read the cell's input, which comes to them through a projection."""
        return tuple(target for target, sources in enumerate(self.sources, start=1) if 0 in sources)

    @lru_cache(maxsize=4096)  # noqa: B019 - graphs are small, and equal ones share an entry
    def channels(self, out_channels: int) -> tuple[int, ...]:
        """Channels of each vertex but the input; 0 for one that is left out.

        Those that feed the output share its channels equally, the first ones taking one more each while there is a
        remainder. Any other has as many as the largest vertex that it feeds (NAS-Bench-101, its public code). Where
        there is a remainder, the numbers of the vertices thus decide which is larger: two numberings of the same cell
        may differ by a channel here and there.

        Raises:
            ValueError: there are fewer channels than vertices to share them.
        """
        feeding = [source for source in self.sources[-1] if source]
        if feeding and out_channels < len(feeding):
            raise ValueError(f"channels: {out_channels} cannot be shared by {len(feeding)} vertices")
        channels = [0] * self.output
        channels[-1] = out_channels
        for place, vertex in enumerate(feeding):
            share, remainder = divmod(out_channels, len(feeding))
            channels[vertex - 1] = share + (place < remainder)
        for vertex in reversed(self.vertices):
            if vertex not in feeding:
                channels[vertex - 1] = max(channels[t - 1] for t in self.vertices if vertex in self.sources[t - 1])
        return tuple(channels)

    def run(
        self,
        x: Tensor,
        out_channels: int,
        project: Callable[[int, Tensor, int], Tensor],
        operate: Callable[[int, Tensor, int], Tensor],
    ) -> Tensor:
        """The output of the cell.

        A vertex adds up what it reads, of other vertices as many channels as it has itself. The output concatenates
        its vertices, and adds the projected input to them.

        Args:
            x: ``[batch, channels, height, width]``.
            out_channels: of the output.
            project: (vertex, cell input, channels) to the projection in front of that vertex.
            operate: (vertex, its input, channels) to what the operation of that vertex gives.
        """
        channels = self.channels(out_channels)
        values: dict[int, Tensor] = {}
        for vertex in self.vertices:
            width = channels[vertex - 1]
            messages = [values[source][:, :width] for source in self.sources[vertex - 1] if source]
            if 0 in self.sources[vertex - 1]:
                messages.append(project(vertex, x, width))
            values[vertex] = operate(vertex, sum(messages[1:], start=messages[0]), width)
        feeding = [values[source] for source in self.sources[-1] if source]
        if not feeding:
            return project(self.output, x, out_channels)
        merged = feeding[0] if len(feeding) == 1 else torch.cat(feeding, dim=1)
        return merged + project(self.output, x, out_channels) if 0 in self.sources[-1] else merged


class ConvNormReLU(nn.Module):
    """Convolution without bias, normalisation, ReLU, of which the first channels can be used alone.

    Args:
        in_channels: of the input, at most.
        out_channels: of the output, at most.
        kernel: odd; the resolution stays.
        norm: channels to a layer that normalises each channel on its own.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor, channels: int | None = None) -> Tensor:
        """``[batch, inputs, height, width]`` to ``[batch, channels, height, width]``; by default all channels."""
        inputs, full = x.shape[1], self.convolution.out_channels
        channels = full if channels is None else channels
        if inputs == self.convolution.in_channels and channels == full:
            return self.norm(self.convolution(x)).relu()
        weight = self.convolution.weight[:channels, :inputs]
        x = nn.functional.conv2d(x, weight, padding=self.convolution.padding)
        return self._normalised(x, channels).relu()

    def sliced_state(self, inputs: int | None, channels: int) -> dict[str, Tensor]:
        """What a `ConvNormReLU` of that size would hold: views of the first channels; None for all inputs."""
        norm = {f"norm.{name}": value.detach() for name, value in self._norm_state(channels).items()}
        return {"convolution.weight": self.convolution.weight.detach()[:channels, :inputs], **norm}

    def _normalised(self, x: Tensor, channels: int) -> Tensor:
        norm = self.norm
        if type(norm) is nn.BatchNorm2d and norm.running_mean is None:
            # What a supernet usually has, and `functional_call` would take longer than a small convolution.
            scale, shift = (None if tensor is None else tensor[:channels] for tensor in (norm.weight, norm.bias))
            return nn.functional.batch_norm(x, None, None, scale, shift, training=True, eps=norm.eps)
        # The layer itself, for it may have been exchanged for one that talks to other ranks.
        return functional_call(norm, self._norm_state(channels), (x,))

    def _norm_state(self, channels: int) -> dict[str, Tensor]:
        # Views, so that running statistics are written through them.
        tensors = [*self.norm.named_parameters(), *self.norm.named_buffers()]
        return {name: tensor[:channels] if tensor.dim() else tensor for name, tensor in tensors}


class MaxPool(nn.MaxPool2d):
    """3x3 maximum of the neighbourhood, resolution and channels kept."""

    def __init__(self) -> None:
        super().__init__(3, stride=1, padding=1)

    def forward(self, x: Tensor, channels: int | None = None) -> Tensor:
        """``[batch, channels, height, width]`` to the same shape; the number of channels follows from the input."""
        return super().forward(x)

    def sliced_state(self, inputs: int | None, channels: int) -> dict[str, Tensor]:
        """Nothing."""
        return {}


def vertex_operation(name: str, channels: int, norm: Norm = nn.BatchNorm2d) -> ConvNormReLU | MaxPool:
    """The operation of that name of `OPERATION_NAMES`, freshly initialised."""
    if name == "maxpool3x3":
        return MaxPool()
    return ConvNormReLU(channels, channels, 3 if name == "conv3x3-bn-relu" else 1, norm)


class VertexCell(nn.Module):
    """The cell of one graph; it has the parameters of that graph's vertices and no others.

    Args:
        graph: of the cell.
        in_channels: of its input.
        out_channels: of its output.
        norm: builds the normalisation layers.
    """

    def __init__(self, graph: CellGraph, in_channels: int, out_channels: int, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        self.graph, self.out_channels = graph, out_channels
        widths = graph.channels(out_channels)
        self.projections = nn.ModuleDict(
            {str(vertex): ConvNormReLU(in_channels, widths[vertex - 1], 1, norm) for vertex in graph.projected}
        )
        self.operations = nn.ModuleDict(
            {
                str(vertex): vertex_operation(OPERATION_NAMES[graph.operations[vertex - 1]], widths[vertex - 1], norm)
                for vertex in graph.vertices
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, height, width]``."""
        return self.graph.run(
            x,
            self.out_channels,
            lambda vertex, value, _: self.projections[str(vertex)](value),
            lambda vertex, value, _: self.operations[str(vertex)](value),
        )


class VertexSuperCell(PathModule):
    """Every operation on every vertex, at the cell's full number of channels; a path takes the first ones.

    Beside a path's choices, its weights multiply what the operations of vertices give; edges are not weighted.

    Args:
        selection: of its supernet.
        graph_of: choices to their graph.
        first: the decision of the first vertex's operation; those of the others follow.
        vertices: between input and output.
        in_channels: of the cell's input.
        out_channels: of its output, at least one for each vertex.
        norm: channels to a layer that normalises each channel on its own; its tensors are sliced too.

    Raises:
        ValueError: there are fewer channels than vertices to share them.
    """

    def __init__(
        self,
        selection: Selection,
        graph_of: Callable[[tuple[int, ...]], CellGraph],
        first: int,
        vertices: int,
        in_channels: int,
        out_channels: int,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__(selection)
        if out_channels < vertices:
            raise ValueError(f"channels: {out_channels} cannot be shared by {vertices} vertices")
        self.graph_of, self.first, self.out_channels = graph_of, first, out_channels
        self.projections = nn.ModuleDict(
            {str(vertex): ConvNormReLU(in_channels, out_channels, 1, norm) for vertex in range(1, vertices + 2)}
        )
        self.operations = nn.ModuleDict(
            {
                str(vertex): nn.ModuleList(vertex_operation(name, out_channels, norm) for name in OPERATION_NAMES)
                for vertex in range(1, vertices + 1)
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, out_channels, height, width]``.

        Raises:
            ValueError: the path has no choices.
        """
        path = self.selection.path
        if path.choices is None:
            raise ValueError(
                "a path without choices (a continuous relaxation) has no meaning in the NAS-Bench-101 space, where the "
                "number of channels depends on the edges; use a path sampler that chooses one architecture a step"
            )
        graph, weights = self.graph_of(tuple(path.choices)), path.weights

        def project(vertex: int, value: Tensor, channels: int) -> Tensor:
            return self.projections[str(vertex)](value, channels)

        def operate(vertex: int, value: Tensor, channels: int) -> Tensor:
            choice = graph.operations[vertex - 1]
            result = self.operations[str(vertex)][choice](value, channels)  # type: ignore[index]
            return result if weights is None else result * weights[self.first + vertex - 1][choice]

        return graph.run(x, self.out_channels, project, operate)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The first channels of the chosen operations' tensors, by the keys of `VertexCell`."""
        graph = self.graph_of(tuple(choices))
        channels = graph.channels(self.out_channels)
        parts: list[tuple[str, Any, int | None, int]] = [
            (f"projections.{vertex}", self.projections[str(vertex)], None, channels[vertex - 1])
            for vertex in graph.projected
        ]
        for vertex in graph.vertices:
            operation = self.operations[str(vertex)][graph.operations[vertex - 1]]  # type: ignore[index]
            parts.append((f"operations.{vertex}", operation, channels[vertex - 1], channels[vertex - 1]))
        return {
            f"{prefix}.{key}": value
            for prefix, module, inputs, width in parts
            for key, value in module.sliced_state(inputs, width).items()
        }


class VertexCellNetwork(nn.Module):
    """The network of NAS-Bench-101: stem, three stacks of equal cells, classifier.

    A 2x2 max pool between stacks halves the resolution, and the cell behind it doubles the channels (NAS-Bench-101,
    sec. 2.1 and its public code). Layers start as TensorFlow's do in that code: convolutions from a truncated normal
    distribution of variance 1 / fan-in, the classifier from Glorot's uniform one.

    Running statistics follow torch's momentum; the benchmark's moves thirty times more slowly, which only a training
    of its length averages out.

    Args:
        build_cell: (in_channels, out_channels) to a module that keeps the resolution.
        num_classes: outputs of the classifier.
        channels: of the stem and the first stack.
        cells: in each stack.
        in_channels: of the images.
        norm: builds the normalisation layer of the stem.
    """

    def __init__(
        self,
        build_cell: Callable[[int, int], nn.Module],
        num_classes: int,
        channels: int = 128,
        cells: int = 3,
        in_channels: int = 3,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        self.stem = ConvNormReLU(in_channels, channels, 3, norm)
        blocks: list[nn.Module] = []
        width = channels
        for stack in range(3):
            if stack:
                blocks.append(nn.MaxPool2d(2))
            for _ in range(cells):
                blocks.append(build_cell(width, channels * 2**stack))
                width = channels * 2**stack
        self.body = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # A normal distribution cut off at two standard deviations has 0.8796 times its width.
                deviation = 1 / math.sqrt(module.weight[0].numel()) / 0.87962566
                nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        nn.init.xavier_uniform_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def features(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to ``[batch, 4 * channels, height / 4, width / 4]``."""
        return self.body(self.stem(images))

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` (at least 4 pixels) to logits ``[batch, num_classes]``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))
