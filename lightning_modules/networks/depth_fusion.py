"""Networks that estimate depth from one image: a backbone, four fusion cells, a head.

How data walks: the backbone gives feature maps at 1/4, 1/8, 1/16 and 1/32 of the resolution. The fusion cells run from
the coarsest to the finest; each merges what came before with the map of its own resolution and is followed by an
upsampling. A head of three convolutions turns the last feature map into inverse depth (MiDaS, Ranftl et al. 2020; as a
search space: Landmark Regularization, CVPR 2021). A stand-alone network and a supernet differ in their cells and
upsamplings only, so both hand their own builders to `DepthNetwork`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm, ReductionBlock, ReLUConvNorm, Zero, cell_plan
from lightning_modules.networks.supernet import PathModule, Selection, SuperEdges
from lightning_modules.spelling import nearest

FUSIONS = 4
"""Fusion cells of a network, one a feature map of the backbone."""
EDGES = ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(target node, source node) of a cell: node 0 is the fusion before it, node 1 the backbone's feature map."""
BACKBONES = ("residual", "resnext101_32x8d")
HEAD_CHANNELS = 32
"""Between the last two convolutions of the head."""

UPSAMPLINGS: dict[str, Callable[[int, Norm], nn.Module]] = {
    # Corners are not aligned: assumed, the paper does not say.
    "bilinear": lambda channels, norm: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
    "bicubic": lambda channels, norm: nn.Upsample(scale_factor=2, mode="bicubic", align_corners=False),
    "transposed_conv": lambda channels, norm: nn.ConvTranspose2d(channels, channels, 4, 2, 1, bias=False),
    "pixel_shuffle": lambda channels, norm: nn.Sequential(
        ReLUConvNorm(channels, 4 * channels, 1, norm=norm), nn.PixelShuffle(2)
    ),
}
"""Upsampling by two: its name to the constructor of (channels, norm)."""


class StagedBackbone(nn.Module):
    """A stem and stages, each of which gives a feature map of half the resolution of the one before."""

    channels: tuple[int, ...]
    stem: nn.Module
    stages: nn.ModuleList

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps at 1/4, 1/8, 1/16 and 1/32 of the resolution."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class ResidualBackbone(StagedBackbone):
    """A small backbone for CPUs: a stem and four residual blocks, each of which halves the resolution.

    Args:
        width: channels of the first feature map; each of the others has twice as many as the one before.
        in_channels: of the images.
        norm: builds the normalisation layers.
    """

    def __init__(self, width: int = 16, in_channels: int = 3, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        self.channels = tuple(width * 2**stage for stage in range(FUSIONS))
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False), norm(width))
        inputs = (width, *self.channels[:-1])
        self.stages = nn.ModuleList(
            ReductionBlock(before, after, norm) for before, after in zip(inputs, self.channels, strict=True)
        )


class ResNeXtBackbone(StagedBackbone):
    """ResNeXt-101 32x8d, the paper's backbone.

    Args:
        weights: a file of torchvision's or WSL's weights (``torch.save`` of a state dict); None for random ones. Given
            weights keep their normalisation statistics, scale and shift for good; random ones have nothing to keep.
        norm: builds the normalisation layers of a backbone with random weights.

    Raises:
        ValueError: the file does not hold the weights of this network.
    """

    channels = (256, 512, 1024, 2048)

    def __init__(self, weights: Path | None = None, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        from torchvision.models import resnext101_32x8d
        from torchvision.ops import FrozenBatchNorm2d

        if weights is None:
            # Afterwards, for torchvision sets scales and shifts that a supernet's normalisation does not have.
            network = with_norms(resnext101_32x8d(weights=None), norm)
        else:
            state = _read_weights(weights)
            with torch.device("meta"):  # initial values would be drawn for nothing
                network = resnext101_32x8d(weights=None, norm_layer=FrozenBatchNorm2d)
            network.fc = nn.Identity()
            _load_weights(network, state, weights)
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.stages = nn.ModuleList([network.layer1, network.layer2, network.layer3, network.layer4])


def with_norms(network: Any, norm: Norm | None) -> Any:
    """A network with other normalisation layers in the place of its batch normalisation.

    Args:
        network: changed in place.
        norm: builds them anew; None for those that it has, whose statistics, scale and shift stay for good.
    """
    from torchvision.ops import FrozenBatchNorm2d

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                if norm is None:
                    frozen = FrozenBatchNorm2d(child.num_features, child.eps)
                    frozen.load_state_dict(child.state_dict())
                setattr(module, name, frozen if norm is None else norm(child.num_features))
    return network


def build_backbone(
    name: str,
    width: int = 16,
    in_channels: int = 3,
    weights: Path | None = None,
    norm: Norm = nn.BatchNorm2d,
) -> StagedBackbone:
    """The backbone of that name.

    Args:
        name: one of `BACKBONES`.
        width: of the residual backbone.
        in_channels: of the images; ResNeXt takes 3.
        weights: a file for ResNeXt.
        norm: builds the normalisation layers.

    Raises:
        ValueError: there is no such backbone, or an argument does not go with it.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone is '{name}', allowed: {', '.join(BACKBONES)}{nearest(name, BACKBONES, '')}")
    if name == "residual":
        if weights is not None:
            raise ValueError(f"weights: '{weights}' are for the backbone resnext101_32x8d, not for residual")
        if width < 1:
            raise ValueError(f"width is {width}, at least 1 channel is needed")
        return ResidualBackbone(width, in_channels, norm)
    if in_channels != 3:
        raise ValueError(f"in_channels is {in_channels}, the backbone {name} takes 3")
    return ResNeXtBackbone(weights, norm)


class FusionCell(nn.Module):
    """Two inputs and two nodes, each the sum of one operation on each node before it.

    Args:
        operations: one module an edge, in the order of `EDGES`.
    """

    def __init__(self, operations: Sequence[nn.Module]):
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self._connected = tuple(not isinstance(operation, Zero) for operation in operations)

    def forward(self, previous: Tensor, skip: Tensor) -> Tensor:
        """Two feature maps ``[batch, channels, height, width]`` to a third."""
        return _fuse(previous, skip, self._connected, lambda edge, x: self.operations[edge](x))


class SuperFusionCell(SuperEdges):
    """A fusion cell with every operation on every edge, in the order of `EDGES`."""

    def forward(self, previous: Tensor, skip: Tensor) -> Tensor:
        """Two feature maps ``[batch, channels, height, width]`` to a third."""
        path, weights = self.selection.path, self.weights()
        if path.choices is None:
            assert weights is not None
            return self._relaxed(previous, skip, weights)
        choices = path.choices[self.decisions]
        return _fuse(
            previous, skip, self.connected(choices), lambda edge, x: self.message(edge, choices[edge], x, weights)
        )

    def _relaxed(self, previous: Tensor, skip: Tensor, weights: Sequence[Tensor]) -> Tensor:
        nodes = [previous, skip]
        for target in (2, 3):
            messages = [
                self.message(edge, choice, nodes[source], weights)
                for edge, (node, source) in enumerate(EDGES)
                if node == target
                for choice, carries in enumerate(self._carries[edge])
                if carries
            ]
            nodes.append(reduce(torch.add, messages))
        return nodes[-1]


class SuperUpsampling(PathModule):
    """Every upsampling, of which a path picks one.

    Args:
        selection: of its supernet.
        operations: one module a choice.
        decision: that picks among them.
    """

    def __init__(self, selection: Selection, operations: Sequence[nn.Module], decision: int):
        super().__init__(selection)
        self.operations = nn.ModuleList(operations)
        self.decision = decision

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to twice the resolution."""
        path = self.selection.path
        weights = None if path.weights is None else path.weights[self.decision]
        if path.choices is not None:
            choice = path.choices[self.decision]
            output = self.operations[choice](x)
            return output if weights is None else output * weights[choice]
        assert weights is not None
        return reduce(
            torch.add, [operation(x) * weight for operation, weight in zip(self.operations, weights, strict=True)]
        )

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The chosen upsampling's tensors."""
        return dict(self.operations[choices[self.decision]].state_dict())


class DepthNetwork(nn.Module):
    """Backbone, projections to equal channels, fusion cells with upsamplings, head.

    Args:
        backbone: as `build_backbone` makes it: says its ``channels`` and gives maps at 1/4, 1/8, 1/16 and 1/32.
        build_cell: number of a fusion, 0 the coarsest, to a module that merges two feature maps.
        build_upsampling: the same number to a module that doubles the resolution.
        channels: of the cells, at least 2.
        norm: builds normalisation layers between the backbone and the projections, for a backbone whose maps may
            be of any size; None for one that needs none.
        flat_start: the head's last layer begins with weights of zero, so that the network gives the same everywhere
            and the first step turns it the right way round. Of small networks that began at random one in ten was the
            wrong way round after training too: the trimmed loss scales predictions by a deviation, which has no sign.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        backbone: Any,
        build_cell: Callable[[int], nn.Module],
        build_upsampling: Callable[[int], nn.Module],
        channels: int = 256,
        norm: Norm | None = None,
        flat_start: bool = False,
    ):
        super().__init__()
        if channels < 2:
            raise ValueError(f"channels is {channels}, at least 2 are needed")
        self.backbone = backbone
        self.projections = nn.ModuleList(_projection(width, channels, norm) for width in backbone.channels)
        self.cells = nn.ModuleList(build_cell(fusion) for fusion in range(FUSIONS))
        self.upsamplings = nn.ModuleList(build_upsampling(fusion) for fusion in range(FUSIONS))
        self.head = _depth_head(channels, flat_start)

    def forward(self, images: Tensor) -> Tensor:
        """Images to inverse depth.

        Args:
            images: float32 ``[batch, in_channels, height, width]``, sizes divisible by 32.

        Returns:
            ``[batch, 1, height, width]``, not negative, of unknown scale and shift.

        Raises:
            ValueError: a size is not divisible by 32.
        """
        height, width = images.shape[2:]
        if height % 32 or width % 32:
            raise ValueError(f"images are {height}x{width} pixels, both must be divisible by 32")
        fused: Tensor | None = None
        maps = [project(features) for project, features in zip(self.projections, self.backbone(images), strict=True)]
        for cell, upsampling, skip in zip(self.cells, self.upsamplings, reversed(maps), strict=True):
            # The first cell has nothing before it and takes its feature map twice (Landmark Regularization).
            fused = upsampling(cell(skip if fused is None else fused, skip))
        assert fused is not None
        return self.head(fused)


def _projection(width: int, channels: int, norm: Norm | None) -> nn.Module:
    convolution = nn.Conv2d(width, channels, 3, padding=1, bias=False)
    return convolution if norm is None else nn.Sequential(norm(width), convolution)


def _depth_head(channels: int, flat_start: bool) -> nn.Sequential:
    last = nn.Conv2d(HEAD_CHANNELS, 1, 1)
    # Assumed: with a bias around zero the final ReLU is dead from the start for some seeds, and such a network never
    # learns. The losses do not see a shift.
    nn.init.ones_(last.bias)  # type: ignore[arg-type]
    if flat_start:
        nn.init.zeros_(last.weight)
    return nn.Sequential(
        nn.Conv2d(channels, channels // 2, 3, padding=1),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.Conv2d(channels // 2, HEAD_CHANNELS, 3, padding=1),
        nn.ReLU(),
        last,
        nn.ReLU(),
    )


def _fuse(
    previous: Tensor, skip: Tensor, connected: tuple[bool, ...], message: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """The last node of a fusion cell, computing only what reaches it."""
    # A densely connected cell of four nodes whose node 1 is given instead of computed.
    plan = cell_plan((False, *connected))
    used = {source for pairs in plan for source, _ in pairs} | {len(plan)}
    nodes: list[Tensor | None] = [previous, skip]
    for target, pairs in enumerate(plan[1:], start=2):
        messages = [message(edge - 1, nodes[source]) for source, edge in pairs]  # type: ignore[arg-type]
        if not messages and target in used:
            messages = [torch.zeros_like(skip)]  # as in `Cell`: a normalised convolution of zeros is its shift
        nodes.append(reduce(torch.add, messages) if messages else None)
    output = nodes[-1]
    assert output is not None
    return output


def _read_weights(file: Path) -> dict[str, Tensor]:
    """The weights in a file, less those of the classifier."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise ValueError(f"weights: '{file}' cannot be read as a state dict ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: '{file}' does not hold a state dict: tensors by name")
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def _load_weights(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Put weights in the place of those of a network under ``torch.device("meta")``."""
    if torch.empty(0).is_meta:  # the caller wants a network without values too
        return
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"weights: '{file}' are not those of resnext101_32x8d ({reason} ...)") from error
