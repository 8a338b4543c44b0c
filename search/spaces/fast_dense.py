"""The space of FastDenseNAS: decoders for dense prediction (Nekrasov et al., CVPR 2019, arXiv 1810.10804)."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.fast_dense import (
    BLOCKS,
    LAYERS,
    OPERATIONS,
    Cell,
    EncoderDecoder,
    FastDenseDecoder,
)
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.encoders import build_encoder
from search.spaces.head import OWN_HEAD, Head

MAPS = 4
"""Feature maps of the encoder, at strides 4, 8, 16 and 32."""
OPERATION_NAMES = tuple(OPERATIONS)
_CONNECTIONS = 2 * BLOCKS
_STRIDES = ("1/4", "1/8", "1/16", "1/32")

PUBLISHED = {
    "arch0": "[[8,[0,0,5,2],[0,2,8,8],[0,5,1,4]],[[3,3],[3,2],[3,0]]]",
    "arch1": "[[2,[1,0,3,6],[0,1,2,8],[2,0,6,1]],[[2,3],[3,1],[4,4]]]",
    "arch2": "[[5,[0,0,4,1],[3,2,0,1],[5,6,5,0]],[[1,3],[4,3],[2,2]]]",
}
"""The published decoders by name (DrSleep/nas-segm-pytorch, tests/test_inference.py)."""


class FastDense(SearchSpace):
    """What three blocks of a decoder read, and the cell that all of them have: 19 decisions, 1.80e15 architectures.

    Block ``b`` reads two of the four feature maps of the encoder and of the blocks before it, perhaps one of them
    twice. The cell applies an operation to its input and then has three layers, each of two operations on any earlier
    results. The third number of choices of a layer's positions is ``2 + 3 j``: the published code's controller has one
    less, and could not find one of the published decoders.

    The string of an architecture is that of the published code, ``[cell, connections]``.
    """

    name = "fast_dense"
    classifies = False

    def __init__(self) -> None:
        blocks = tuple(f"block {number + 1}" for number in range(BLOCKS))
        maps = (*_STRIDES, *blocks)
        self.decisions = (
            *(
                Decision(f"{block} reads {which}", maps[: MAPS + number])
                for number, block in enumerate(blocks)
                for which in ("first", "second")
            ),
            Decision("first operation", OPERATION_NAMES),
            *(decision for layer in range(LAYERS) for decision in _layer(layer)),
        )

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` for a network of a moment."""
        return {"width": 4, "repeats": 1, "encoder": "basicblock_4_1222", "weights": ""}

    # ---- reading and writing ---------------------------------------------------------------------------------------

    def connections(self, architecture: Architecture) -> list[tuple[int, int]]:
        """What each block reads: 0 to 3 are the encoder's maps, from the finest on, then come the blocks."""
        flat = self.check(architecture)[:_CONNECTIONS]
        return list(zip(flat[::2], flat[1::2], strict=True))

    def cell(self, architecture: Architecture) -> Cell:
        """What the cell of all blocks does."""
        first, *rest = self.check(architecture)[_CONNECTIONS:]
        return Cell(first, tuple((rest[k], rest[k + 1], rest[k + 2], rest[k + 3]) for k in range(0, len(rest), 4)))

    def format(self, architecture: Architecture) -> str:
        """The published code's form; `parse` reads it back."""
        cell = self.cell(architecture)
        return json.dumps([[cell.first, *cell.layers], self.connections(architecture)], separators=(",", ":"))

    def parse(self, text: str) -> Architecture:
        """The architecture of a string of the published code's form.

        Raises:
            ValueError: the string is not one of this space.
        """
        try:
            (first, *layers), pairs = json.loads(text)
            rows = [*pairs, *layers]
            form = [len(row) for row in rows] == [2] * BLOCKS + [4] * LAYERS
            flat = [*(each for pair in pairs for each in pair), first, *(each for layer in layers for each in layer)]
            if not form or not all(type(each) is int for each in flat):
                raise ValueError
        except (ValueError, TypeError):
            raise ValueError(
                f"{self.name}: '{text}' must read as in {PUBLISHED['arch0']}: the first operation and {LAYERS} layers "
                f"of [position,position,operation,operation], then what {BLOCKS} blocks read"
            ) from None
        return self.check(flat)

    def canonical(self, archs: Tensor) -> Tensor:
        """What a block reads in ascending order, for each of the two goes through weights of its own.

        Args:
            archs: int64 ``[..., decisions]``; the same comes back.
        """
        pairs = archs[..., :_CONNECTIONS].unflatten(-1, (BLOCKS, 2)).sort(-1).values
        return torch.cat([pairs.flatten(-2), archs[..., _CONNECTIONS:]], dim=-1)

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """Which block reads what, and beside it the cell: ``x`` is its input, ``c`` its first result."""
        edges, cell = [], self.cell(architecture)
        maps = (*_STRIDES, *(f"block {number + 1}" for number in range(BLOCKS)))
        read = set()
        for number, pair in enumerate(self.connections(architecture)):
            edges += [Edge(maps[source], maps[MAPS + number], "cell") for source in pair]
            read |= set(pair)
        edges += [Edge(maps[k], "out", "concat") for k in range(MAPS, MAPS + BLOCKS) if k not in read]
        nodes, used = ["x", "c"], set[int]()
        edges.append(Edge("x", "c", OPERATION_NAMES[cell.first]))
        for number, (one, other, first, second) in enumerate(cell.layers, start=1):
            a, b, total = f"a{number}", f"b{number}", f"s{number}"
            edges += [Edge(nodes[one], a, OPERATION_NAMES[first]), Edge(nodes[other], b, OPERATION_NAMES[second])]
            edges += [Edge(a, total, "sum"), Edge(b, total, "sum")]
            nodes += [a, b, total]
            used |= {one, other}
        sums = (1, *(4 + 3 * layer for layer in range(LAYERS)))
        return edges + [Edge(nodes[k], "cell's result", "sum") for k in sums if k not in used]

    # ---- networks --------------------------------------------------------------------------------------------------

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        width: int = 48,
        repeats: int = 1,
        auxiliary: bool = True,
        encoder: str = "mobilenet_v2",
        encoder_width: float = 1.0,
        weights: str = "",
    ) -> EncoderDecoder:
        """The encoder with the decoder of an architecture, initialised from torch's random state or from weights.

        Args:
            architecture: of this space.
            head: of the network: 21 classes by default; without classes it gives one value a pixel, such as depth.
            width: channels of the decoder; 48 in the paper's search, 64 in its final networks.
            repeats: of separable convolutions; 1 in the paper's search, 2 in its final networks.
            auxiliary: whether each block has a classifier of its own, for training.
            encoder: as `search.spaces.encoders.build_encoder` takes it.
            encoder_width: likewise.
            weights: likewise.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes, ...]`` at the size of
            the finest map that the decoder reads; labels are compared after bilinear interpolation.

        Raises:
            ValueError: the encoder has not four maps, or another argument is out of range.
        """
        if width < 1 or repeats < 1:
            raise ValueError(f"{self.name}: width is {width} and repeats {repeats}, at least 1 is needed of each")
        body: nn.Module = build_encoder(encoder, head.in_channels, encoder_width, weights)
        channels = tuple(body.channels)  # type: ignore[arg-type]
        if len(channels) != MAPS:
            raise ValueError(f"{self.name}: the encoder has {len(channels)} feature maps, {MAPS} are needed")
        classes = head.classes_or(21)
        decoder = FastDenseDecoder(
            channels,
            self.connections(architecture),
            self.cell(architecture),
            width,
            repeats,
            classes or 1,
            auxiliary,
        )
        return EncoderDecoder(body, decoder, classes)


def _layer(number: int) -> list[Decision]:
    """The four decisions of a layer of the cell."""
    results = [name for layer in range(1, number + 1) for name in (f"a{layer}", f"b{layer}", f"s{layer}")]
    places = ("x", "c", *results)
    return [
        *(Decision(f"layer {number + 1} {which} position", places) for which in ("first", "second")),
        *(Decision(f"layer {number + 1} {which} operation", OPERATION_NAMES) for which in ("first", "second")),
    ]
