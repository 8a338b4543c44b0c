"""The two spaces of GDAS (Dong and Yang, CVPR 2019): DARTS' cells by edges, with and without a reduction cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.darts_cells import INPUTS, OPERATION_NAMES, PAIRS, DARTSCell, NodeChoice
from lightning_modules.networks.gdas_cells import REPEATED_PAIRS, EdgeSuperCell, FixedReductionCell
from lightning_modules.networks.supernet import Selection
from search.evaluation import Architecture
from search.spaces.darts import CELLS, DARTS, Genotype, cell_decisions

if TYPE_CHECKING:
    from lightning_modules.path_samplers.relaxation import Relaxation

PUBLISHED: dict[str, str] = {
    "GDAS_V1": (
        "normal=[skip_connect~0,skip_connect~1,skip_connect~0,sep_conv_5x5~2,skip_connect~0,sep_conv_3x3~3,"
        "sep_conv_3x3~3,sep_conv_5x5~4]|reduce=[sep_conv_5x5~0,sep_conv_3x3~1,sep_conv_5x5~1,sep_conv_5x5~2,"
        "sep_conv_3x3~1,dil_conv_5x5~2,sep_conv_5x5~0,sep_conv_5x5~1]"
    ),
    "DARTS_V1": (
        "normal=[sep_conv_3x3~0,sep_conv_3x3~1,skip_connect~0,sep_conv_3x3~1,skip_connect~0,sep_conv_3x3~1,"
        "sep_conv_3x3~0,skip_connect~2]|reduce=[max_pool_3x3~0,max_pool_3x3~1,max_pool_3x3~0,skip_connect~2,"
        "max_pool_3x3~0,skip_connect~2,avg_pool_3x3~0,skip_connect~2]"
    ),
    "DARTS_V2": (
        "normal=[sep_conv_3x3~0,sep_conv_3x3~1,sep_conv_3x3~0,sep_conv_3x3~1,skip_connect~0,sep_conv_3x3~1,"
        "skip_connect~0,dil_conv_3x3~2]|reduce=[max_pool_3x3~0,max_pool_3x3~1,max_pool_3x3~1,skip_connect~2,"
        "max_pool_3x3~0,skip_connect~2,max_pool_3x3~1,skip_connect~2]"
    ),
}
"""Published cells of `GDASCells` (and `DARTS`) by name, as the public code of GDAS has them.

SETN's normal cell has a 1x3 and a 3x1 convolution, which are no operation of these spaces.
"""
PUBLISHED_FRC: dict[str, str] = {
    "GDAS_F1": (
        "normal=[skip_connect~0,skip_connect~1,skip_connect~0,sep_conv_3x3~2,skip_connect~0,sep_conv_3x3~2,"
        "skip_connect~0,sep_conv_3x3~2]"
    ),
}
"""The same of `FixedReduction`."""


class GDASCells(DARTS):
    """The cells of `DARTS`, whose supernet can be searched edge by edge: 14 edges of seven operations or none a cell.

    Its networks, strings and supernet are those of `DARTS`. What differs is what logits stand for: a softmax of every
    edge, of which an architecture keeps two terms a node (`lightning_modules.path_samplers.edges`), in the place of a
    softmax of every decision.

    The search of GDAS takes 16 channels and 6 cells; its final networks 36 channels and 20 cells with a stem for CIFAR,
    or 50 channels and 14 cells with that for ImageNet, both with an auxiliary head.

    Args:
        same_input: whether a node may read one node twice, by two operations. GDAS' rule allows it (the cells that it
            publishes do not use it); DARTS' rule does not, and nor does the count of its space.
    """

    name = "gdas"

    def __init__(self, same_input: bool = False):
        self.same_input = same_input
        self.pairs = REPEATED_PAIRS if same_input else PAIRS
        self.decisions = cell_decisions(self.cell_names, self.pairs)

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Of one node read twice, two different operations, the earlier one first."""
        t = prefix.shape[-1]
        valid = super().valid_choices(prefix)
        node, place = divmod(t, 3)
        if not self.same_input or place == 0:
            return valid
        twice = torch.tensor([first == second for first, second in self.pairs[node % len(self.pairs)]])
        choices, last = torch.arange(len(OPERATION_NAMES)), len(OPERATION_NAMES) - 1
        first = prefix[..., 3 * node + 1 : 3 * node + 2] if place == 2 else None
        allowed = choices < last if first is None else choices > first
        return valid & (allowed | ~twice[prefix[..., 3 * node : 3 * node + 1]])

    def check(self, architecture: Sequence[int]) -> Architecture:
        """As of every space; where no choice rules out another, that is found without tensors."""
        arch = tuple(int(choice) for choice in architecture)
        plain = not self.same_input and len(arch) == len(self.sizes)
        if plain and all(0 <= choice < size for choice, size in zip(arch, self.sizes, strict=True)):
            return arch
        return super().check(arch)

    def relaxation(self) -> Relaxation:
        """A softmax of every edge."""
        from lightning_modules.path_samplers.edges import EdgeRelaxation

        return EdgeRelaxation(self, len(self.cell_names), self.pairs, INPUTS, len(OPERATION_NAMES))

    def _super_cell(self, selection: Selection, channels: int, reduction: bool, norm: Norm) -> nn.Module:
        cell = CELLS[reduction]
        number, kinds = self.cell_names.index(cell), len(self.cell_names)
        return EdgeSuperCell(selection, number, kinds, channels, reduction, norm, self.pairs)


class FixedReduction(GDASCells):
    """GDAS with a fixed reduction cell (FRC): only the normal cell is searched, 12 decisions, 180 * 7^8 cells.

    Every reduction cell is `FixedReductionCell`. The canonical string is ``normal=[op~i,op~j,...]``. GDAS' network for
    ImageNet has 52 channels.

    Args:
        same_input: as for `GDASCells`.
    """

    name = "gdas_frc"
    cell_names = CELLS[:1]

    def from_genotype(self, normal: Genotype, reduce: Genotype = ()) -> Architecture:
        """The architecture of a published genotype.

        Args:
            normal: (operation, node read) of the normal cell, two a node; either order within a node.
            reduce: there is none.

        Raises:
            ValueError: it does not belong to this space; says which part is wrong.
        """
        if list(reduce):
            raise ValueError(f"{self.name}: the reduction cell is fixed, a genotype has none")
        return self._read((normal,))

    def _cell(self, nodes: Mapping[str, Sequence[NodeChoice]], channels: int, reduction: bool) -> nn.Module:
        return FixedReductionCell(channels) if reduction else DARTSCell(nodes["normal"], channels, reduction)

    def _super_cell(self, selection: Selection, channels: int, reduction: bool, norm: Norm) -> nn.Module:
        return (
            FixedReductionCell(channels, norm) if reduction else super()._super_cell(selection, channels, False, norm)
        )
