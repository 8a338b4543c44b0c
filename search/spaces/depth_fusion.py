"""Fusion cells for monocular depth estimation (Landmark Regularization, Yu et al., CVPR 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from datamodules.archives import find_archive
from lightning_modules.networks.cells import OPERATIONS, Norm, build_operation
from lightning_modules.networks.depth_fusion import (
    EDGES,
    FUSIONS,
    UPSAMPLINGS,
    DepthNetwork,
    FusionCell,
    SuperFusionCell,
    SuperUpsampling,
    build_backbone,
    with_norms,
)
from lightning_modules.networks.mobile_encoder import SKELETONS
from lightning_modules.networks.supernet import Selection, Supernet
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.encoders import build_encoder
from search.spaces.head import OWN_HEAD, Head

OPERATION_NAMES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
UPSAMPLING_NAMES = ("bilinear", "bicubic", "transposed_conv", "pixel_shuffle")
NONE = OPERATION_NAMES.index("none")
assert set(OPERATION_NAMES) == set(OPERATIONS) and set(UPSAMPLING_NAMES) == set(UPSAMPLINGS)


class DepthFusion(SearchSpace):
    """Cells that merge the feature maps of a backbone into one of inverse depth.

    A cell has two inputs (node 0: the fusion before it, node 1: the backbone's feature map) and two nodes; each of its
    five edges carries one of five operations. Cells whose output neither input reaches are ruled out, which leaves
    3,096 of the 3,125 cells of version 1 and 12,384 of the 12,500 of version 2; with four independent cells their
    fourth power, 9.2e13 and 2.4e16.

    Args:
        version: 1 upsamples bilinearly behind each cell, 2 also searches the upsampling.
        synchronised: one cell for all four fusions; False for a cell of its own for each, the coarsest first.

    Raises:
        ValueError: there is no such version.
    """

    classifies = False

    def __init__(self, version: Literal[1, 2] = 1, synchronised: bool = True):
        if version not in (1, 2):
            raise ValueError(f"version is {version!r}, allowed: 1 (bilinear upsampling), 2 (upsampling is searched)")
        self.version, self.synchronised = version, synchronised
        self.name = f"depth_fusion_v{version}_{'sync' if synchronised else 'nonsync'}"
        cell: list[tuple[str, tuple[str, ...]]] = [(f"{target}<-{source}", OPERATION_NAMES) for target, source in EDGES]
        if version == 2:
            cell.append(("upsampling", UPSAMPLING_NAMES))
        self._cell_size = len(cell)
        prefixes = [""] if synchronised else [f"cell {number} " for number in range(1, FUSIONS + 1)]
        self.decisions = tuple(Decision(prefix + name, choices) for prefix in prefixes for name, choices in cell)

    image_multiple = 32

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment, whose weights nobody has to bring."""
        return {"channels": 8, "backbone": "residual", "weights": ""}

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """All choices but those that cut a cell's output off from both inputs; arguments as for every space."""
        valid = super().valid_choices(prefix)
        decision = prefix.shape[-1] % self._cell_size
        none = prefix[..., prefix.shape[-1] - decision :] == NONE
        if decision == 3:  # with 2<-0, 2<-1 and 3<-0 gone, 3<-1 is the only way left
            valid[..., NONE] &= ~none.all(-1)
        if decision == 4:  # with 3<-0 and 3<-1 gone, all must go through node 2
            valid[..., NONE] &= ~none[..., 2:].all(-1)
        return valid

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The graph of each cell, node 0 the fusion before it, 1 the backbone's map and 3 the output.

        Edges that carry nothing are left out. The last edge of a cell is its upsampling.
        """
        architecture, edges = self.check(architecture), []
        count = len(self.decisions) // self._cell_size
        for number in range(count):
            here = "" if count == 1 else f"cell {number + 1}: "
            following = "out" if number == count - 1 else f"cell {number + 2}: 0"
            operations, upsampling = self._names(architecture, number)
            edges += [
                Edge(f"{here}{source}", f"{here}{target}", operation)
                for (target, source), operation in zip(EDGES, operations, strict=True)
                if operation != "none"
            ]
            edges.append(Edge(f"{here}3", following, upsampling))
        return edges

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        channels: int = 256,
        backbone: str = "residual",
        width: int = 16,
        weights: str = "",
        frozen: bool = False,
        flat_start: bool = False,
    ) -> nn.Module:
        """The depth network of that architecture, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: of the network; it has no classes.
            channels: of the cells; 256 in the paper.
            backbone: ``residual``, small and for CPUs; ``resnext101_32x8d``, the paper's; or a mobile encoder of
                `build_encoder`, such as ``efficientnet_lite0``.
            width: channels of the residual backbone's first feature map.
            weights: a local file of the backbone's weights, looked for below the current folder, then below
                ``$CATCHMARK_DATA``, or ``package`` as `build_encoder` has it; normalisation layers are then frozen.
                Empty for random weights. Nothing is ever downloaded.
            frozen: the backbone keeps its weights, of which no gradients are taken: an epoch takes half as long.
            flat_start: the head's last layer begins with weights of zero: every training then starts the right way
                round, which is not so with the trimmed loss otherwise (`DepthNetwork`). Nothing for zero-cost proxies,
                which read gradients at the start.

        Returns:
            A module from ``[batch, in_channels, height, width]``, sizes divisible by 32, to inverse depth
            ``[batch, 1, height, width]``.

        Raises:
            ValueError: an argument is out of range, or the weights belong to another network.
            FileNotFoundError: there is no such file of weights.
        """
        architecture = self.check(architecture)

        def build_cell(fusion: int) -> nn.Module:
            return FusionCell([build_operation(name, channels) for name in self._names(architecture, fusion)[0]])

        def build_upsampling(fusion: int) -> nn.Module:
            return UPSAMPLINGS[self._names(architecture, fusion)[1]](channels, nn.BatchNorm2d)

        trunk = _trunk(backbone, width, _channels(head), weights, nn.BatchNorm2d, frozen)
        return DepthNetwork(
            trunk, build_cell, build_upsampling, channels, _norm_of_maps(backbone, nn.BatchNorm2d), flat_start
        )

    def build_supernet(
        self,
        norm: Norm = nn.BatchNorm2d,
        head: Head = OWN_HEAD,
        channels: int = 256,
        backbone: str = "residual",
        width: int = 16,
        weights: str = "",
        frozen: bool = False,
        flat_start: bool = False,
    ) -> Supernet:
        """The depth network with every operation and every upsampling of the space; arguments as for `build`."""

        def build(selection: Selection) -> nn.Module:
            def build_cell(fusion: int) -> nn.Module:
                operations = [[build_operation(name, channels, norm=norm) for name in OPERATION_NAMES] for _ in EDGES]
                return SuperFusionCell(selection, operations, self._first(fusion))

            def build_upsampling(fusion: int) -> nn.Module:
                if self.version == 1:
                    return UPSAMPLINGS["bilinear"](channels, norm)
                upsamplings = [UPSAMPLINGS[name](channels, norm) for name in UPSAMPLING_NAMES]
                return SuperUpsampling(selection, upsamplings, self._first(fusion) + len(EDGES))

            trunk = _trunk(backbone, width, _channels(head), weights, norm, frozen)
            return DepthNetwork(
                trunk, build_cell, build_upsampling, channels, _norm_of_maps(backbone, norm), flat_start
            )

        return Supernet(build)

    def _first(self, fusion: int) -> int:
        """The first decision of a fusion's cell."""
        return 0 if self.synchronised else fusion * self._cell_size

    def _names(self, architecture: Architecture, fusion: int) -> tuple[list[str], str]:
        """Operation of each edge and upsampling of a fusion."""
        cell = architecture[self._first(fusion) :][: self._cell_size]
        upsampling = UPSAMPLING_NAMES[cell[len(EDGES)]] if self.version == 2 else "bilinear"
        return [OPERATION_NAMES[choice] for choice in cell[: len(EDGES)]], upsampling


def _channels(head: Head) -> int:
    """Channels of the images.

    Raises:
        ValueError: classes are to be told apart, which a map of depth does not.
    """
    if head.classes:
        raise ValueError(f"depth_fusion: its networks give inverse depth, and the data have {head.classes} classes")
    return head.in_channels


def _trunk(name: str, width: int, in_channels: int, weights: str, norm: Norm, frozen: bool) -> nn.Module:
    """The backbone, with given weights or with random ones, whose normalisation is then built as the rest's."""
    if name in SKELETONS:
        trunk = with_norms(build_encoder(name, in_channels, weights=weights), None if weights else norm)
    else:
        trunk = build_backbone(name, width, in_channels, _find_weights(weights), norm)
    return trunk.requires_grad_(not frozen)


def _norm_of_maps(backbone: str, norm: Norm) -> Norm | None:
    """What normalises a backbone's maps: those of a mobile encoder end in convolutions without activation.

    Their size is anything (what the head sees had a standard deviation of 300 with EfficientNet-Lite0): it may then
    begin so far from zero that its last ReLU is dead for nearly all pixels, for good.
    """
    return norm if backbone in SKELETONS else None


def _find_weights(file: str) -> Path | None:
    if not file:
        return None
    cure = (
        "download torchvision's resnext101_32x8d weights or those of facebookresearch/WSL-Images, and name that file; "
        "without 'weights' the backbone starts from random ones"
    )
    return find_archive(file, "no backbone weights", cure)
