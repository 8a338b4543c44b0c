"""The space of NAS-FPN: feature pyramids of merging cells (Ghiasi, Lin and Le, CVPR 2019, arXiv 1904.07392)."""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import Any

from torch import Tensor, nn

from lightning_modules.networks.merging_cells import (
    CELLS,
    COMBINATIONS,
    LEVELS,
    OUTPUT_CELLS,
    Form,
    MergingCell,
    MergingCellFPN,
    PyramidNetwork,
    unread_maps,
)
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.encoders import build_encoder
from search.spaces.head import OWN_HEAD, Head

PUBLISHED_STRING = (
    "P4=attention(1,3)|P4=sum(1,5)|P3=sum(0,6)|P4=sum(6,7)|P5=attention(7,8)|P7=attention(6,9)|P6=attention(9,10)"
)
"""The pyramid that the paper found, as `PUBLISHED` of `lightning_modules.networks.merging_cells`."""

_PARTS = 3
"""Decisions of a cell: what it reads, the level of its output, how it combines."""
_FREE = CELLS - OUTPUT_CELLS
_CELL = re.compile(r"P([3-7])=(\w+)\(([0-9]+),([0-9]+)\)")


class NASFPN(SearchSpace):
    """Which maps each of seven merging cells reads, the level of its output, and whether it adds or attends.

    The pool begins with the maps of levels 3 to 7; each cell reads two different ones and adds its own. The first two
    cells make a map of any level (assumed), the last five one each of the levels, in any order: 21 decisions and
    3.02e15 architectures.

    The string of an architecture names each cell's level, combination and inputs, ``P4=attention(1,3)|...``.
    """

    name = "nas_fpn"

    def __init__(self) -> None:
        decisions = []
        for cell in range(CELLS):
            decisions += [
                Decision(f"cell {cell + 1} reads", tuple(f"{one}+{other}" for one, other in _pairs(cell))),
                Decision(f"cell {cell + 1} level", tuple(f"P{level}" for level in LEVELS)),
                Decision(f"cell {cell + 1} combination", COMBINATIONS),
            ]
        self.decisions = tuple(decisions)

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` for a network of a moment."""
        return {"channels": 4, "repeats": 1, "backbone": "basicblock_4_1222", "weights": ""}

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """All but the levels that an output cell before has made; arguments as for every space."""
        valid = super().valid_choices(prefix)
        cell, part = divmod(prefix.shape[-1], _PARTS)
        if part == 1 and cell > _FREE:
            made = prefix[..., _FREE * _PARTS + 1 :: _PARTS]
            valid = valid.scatter(-1, made, False)
        return valid

    # ---- reading and writing ---------------------------------------------------------------------------------------

    def cells(self, architecture: Architecture) -> list[MergingCell]:
        """The merging cells of an architecture."""
        choices = self.check(architecture)
        return [
            MergingCell(*_pairs(cell)[reads], LEVELS[level], COMBINATIONS[combination])
            for cell, (reads, level, combination) in enumerate(
                zip(choices[::_PARTS], choices[1::_PARTS], choices[2::_PARTS], strict=True)
            )
        ]

    def of_cells(self, cells: tuple[MergingCell, ...]) -> Architecture:
        """The architecture of some cells, such as `lightning_modules.networks.merging_cells.PUBLISHED`.

        Raises:
            ValueError: the space has none.
        """
        choices = []
        for number, cell in enumerate(cells):
            pairs = _pairs(number)
            if (cell.first, cell.second) not in pairs:
                raise ValueError(
                    f"{self.name}: cell {number + 1} reads {cell.first} and {cell.second}, two different ones of 0 to "
                    f"{len(LEVELS) + number - 1} in ascending order are needed"
                )
            choices += [
                pairs.index((cell.first, cell.second)),
                LEVELS.index(cell.level),
                COMBINATIONS.index(cell.combination),
            ]
        return self.check(choices)

    def format(self, architecture: Architecture) -> str:
        """Each cell as ``P4=attention(1,3)``; `parse` reads it back."""
        return "|".join(
            f"P{each.level}={each.combination}({each.first},{each.second})" for each in self.cells(architecture)
        )

    def parse(self, text: str) -> Architecture:
        """The architecture of a string.

        Raises:
            ValueError: the string is not one of this space.
        """
        cells = []
        for part in text.split("|"):
            found = _CELL.fullmatch(part)
            if found is None or found[2] not in COMBINATIONS:
                raise ValueError(f"{self.name}: '{part}' must read as in P4=attention(1,3), with sum or attention")
            cells.append(MergingCell(int(found[3]), int(found[4]), int(found[1]), found[2]))
        return self.of_cells(tuple(cells))

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """Who reads whom; the outputs are drawn by their level, and what is added to one unread too."""
        cells = self.cells(architecture)
        nodes = [f"P{level}" for level in LEVELS]
        nodes += [f"P{cell.level} (cell {number + 1})" for number, cell in enumerate(cells)]
        edges = []
        for number, (cell, others) in enumerate(zip(cells, unread_maps(cells), strict=True)):
            here = nodes[len(LEVELS) + number]
            edges += [Edge(nodes[k], here, cell.combination) for k in (cell.first, cell.second)]
            edges += [Edge(nodes[k], here, "unread") for k in others]
        outputs = range(len(nodes) - OUTPUT_CELLS, len(nodes))
        return edges + [Edge(nodes[k], "out", f"P{cells[k - len(LEVELS)].level}") for k in outputs]

    # ---- networks --------------------------------------------------------------------------------------------------

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        channels: int = 256,
        repeats: int = 7,
        form: Form = "published",
        anytime: bool = False,
        backbone: str = "basicblock_64_1-2-2-2",
        backbone_width: float = 1.0,
        weights: str = "",
    ) -> PyramidNetwork:
        """A backbone under the pyramid of an architecture, initialised from torch's random state or from weights.

        `DetectionModule` puts both into any detector of mmdet. By itself the network classifies, by the means of the
        pyramid's maps: so whatever looks at networks, such as FLOPs and zero-cost proxies, sees all that is searched.

        Args:
            architecture: of this space.
            head: of the network; 80 classes by default.
            channels: of the pyramid.
            repeats: of the pyramid; 7 in the paper's networks, 3 in its proxy (recalled).
            form: as `MergingCellFPN` takes it.
            anytime: likewise.
            backbone: as `search.spaces.encoders.build_encoder` takes it; by default a residual network of one block a
                stage, ResNet-10.
            backbone_width: likewise.
            weights: of the backbone, likewise.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes]``, with ``backbone`` and
            ``neck``.

        Raises:
            ValueError: an argument is out of range.
        """
        body: nn.Module = build_encoder(backbone, head.in_channels, backbone_width, weights)
        neck = MergingCellFPN(
            list(body.channels),  # type: ignore[arg-type]
            channels,
            stack_times=repeats,
            cells=self.cells(architecture),
            form=form,
            anytime=anytime,
        )
        return PyramidNetwork(body, neck, head.classes_or(80))


@cache
def _pairs(cell: int) -> tuple[tuple[int, int], ...]:
    """What a cell may read: two different maps of the pool."""
    return tuple(itertools.combinations(range(len(LEVELS) + cell), 2))
