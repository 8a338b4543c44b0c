"""MnasNet's factorised hierarchical space (Tan et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.mbconv import rounded
from lightning_modules.networks.mnasnet import (
    OPERATIONS,
    SHORTCUTS,
    STAGES,
    STEM,
    STRIDES,
    Block,
    build_mnasnet,
    scaled,
)
from search.evaluation import Architecture
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head

KERNELS = (3, 5)
WIDTHS = (0.75, 1.0, 1.25)
"""Filters as a share of MobileNetV2's."""
LAYERS = (0, 1, -1)
"""More layers than MobileNetV2 has."""
PARTS = (
    ("operation", OPERATIONS),
    ("kernel", tuple(f"{k}x{k}" for k in KERNELS)),
    ("filters", tuple(f"{width:g}" for width in WIDTHS)),
    ("layers", tuple(f"{more:+d}" for more in LAYERS)),
    ("squeeze", ("0", "0.25")),
    ("skip", tuple(SHORTCUTS)),
)
"""The six decisions of a block: 4 * 2 * 3 * 3 * 2 * 3 = 432, the paper's S (sec. 4.1)."""
_OPERATION, _FILTERS, _LAYERS, _SQUEEZE, _SKIP = 0, 2, 3, 4, 5
_NO_SKIP = PARTS[_SKIP][1].index("none")
_FIXED = [Block("mbconv6", 3, False, "identity", channels, layers, stride) for channels, layers, stride in STAGES]
_FIXED[0] = Block("dconv", 3, False, "none", 16, 1, 1)
"""MobileNetV2's blocks, which stand where nothing is decided; the first and the last one are those of the published
networks too."""

# Operation, kernel, filters, layers, squeeze, skip.
_A1 = (
    (1, 0, 1, 0, 0, 2),
    (3, 0, 1, 0, 0, 1),
    (2, 1, 2, 0, 1, 1),
    (3, 0, 2, 0, 0, 1),
    (3, 0, 2, 2, 1, 1),
    (3, 1, 1, 0, 1, 1),
    (3, 0, 1, 0, 0, 2),
)
_B1 = (
    (1, 0, 1, 0, 0, 2),
    (2, 0, 1, 1, 0, 1),
    (2, 1, 2, 0, 0, 1),
    (3, 1, 2, 2, 0, 1),
    (3, 0, 1, 2, 0, 1),
    (3, 1, 2, 1, 0, 1),
    (3, 0, 1, 0, 0, 2),
)
_SMALL = (
    (1, 0, 1, 0, 0, 2),
    (2, 0, 1, 2, 0, 2),
    (3, 0, 1, 2, 0, 1),
    (3, 1, 1, 0, 1, 1),
    (3, 0, 1, 0, 1, 1),
    (3, 1, 1, 0, 1, 1),
    (3, 0, 1, 0, 0, 2),
)
PUBLISHED: dict[str, tuple[Architecture, dict[str, Any]]] = {
    "MnasNet-A1": (sum(_A1, ()), {"widths": [16, 24, 40, 80, 112, 160, 320]}),
    "MnasNet-B1": (sum(_B1, ()), {"widths": [16, 24, 40, 80, 96, 192, 320]}),
    "MnasNet-small": (sum(_SMALL, ()), {"widths": [8, 16, 16, 32, 32, 88, 144], "stem": 8}),
}
"""The published networks, each with arguments of `build` (mnasnet_models.py): widths of 112 and 192 channels, and those
of the small network, are not among the choices."""


class MnasNet(SearchSpace):
    """Operation, kernel, filters, layers, squeeze-and-excitation and skip of each block of MobileNetV2's skeleton.

    Six decisions a block, 432 combinations, 432^B architectures of B blocks before what rules others out: a block keeps
    at least one layer, only MBConvs weigh channels, and a block skips only where one of its layers keeps the shape of
    its input [assumed]. What is ruled out leaves one choice, so no two architectures differ in what changes nothing.

    Args:
        blocks: B. 7 are all of MobileNetV2's; fewer are those from the second one on, so that 5 leave the first and the
            last one as they are in the published networks [assumed: the paper does not say where its B is 5].
        repeated: whether one block's decisions hold for all, as in a space of one cell; for comparisons.

    Raises:
        ValueError: there is no such number of blocks.
    """

    def __init__(self, blocks: int = 7, repeated: bool = False):
        if not 1 <= blocks <= len(STAGES):
            raise ValueError(f"mnasnet: blocks is {blocks}, allowed: 1 to {len(STAGES)}")
        self.name = f"mnasnet{blocks}{'_repeated' if repeated else ''}"
        self.stages = tuple(range(7) if blocks == 7 else range(1, blocks + 1))
        self.repeated = repeated
        named = ["block"] if repeated else [f"block {stage + 1}" for stage in self.stages]
        self.decisions = tuple(Decision(f"{block} {part}", choices) for block in named for part, choices in PARTS)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """One block."""
        return {"blocks": 1}

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` for a network of a moment."""
        return {"width_multiplier": 0.1, "head_channels": 16, "skeleton": "cifar"}

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Choices that make a difference, and leave a layer."""
        valid = super().valid_choices(prefix)
        number, part = divmod(prefix.shape[-1], len(PARTS))
        own = prefix[..., number * len(PARTS) :]
        if part == _LAYERS:
            least = min(STAGES[stage][1] for stage in self._stages_of(number))
            return valid & (torch.tensor(LAYERS) + least >= 1)
        if part == _SQUEEZE:
            valid[..., 1] = own[..., _OPERATION] >= 2
        if part == _SKIP:
            can = (own[..., _OPERATION] >= 2) & self._keeps_a_shape(prefix, number)
            valid[..., :_NO_SKIP] = can.unsqueeze(-1)
        return valid

    def _stages_of(self, number: int) -> tuple[int, ...]:
        """The stages for which a block's decisions hold."""
        return self.stages if self.repeated else (self.stages[number],)

    def _keeps_a_shape(self, prefix: Tensor, number: int) -> Tensor:
        """Whether some layer of a block has an output of its input's shape: int64 ``[..., t]`` to bool ``[...]``."""
        if self.repeated:  # that of some stage does
            return torch.ones(prefix.shape[:-1], dtype=torch.bool)
        stage, place = self.stages[number], number * len(PARTS)
        several = STAGES[stage][1] + torch.tensor(LAYERS)[prefix[..., place + _LAYERS]] > 1
        if STAGES[stage][2] > 1:
            return several
        own = torch.tensor([rounded(STAGES[stage][0] * width) for width in WIDTHS])[prefix[..., place + _FILTERS]]
        if number:
            before = [rounded(STAGES[stage - 1][0] * width) for width in WIDTHS]
            same = own == torch.tensor(before)[prefix[..., place - len(PARTS) + _FILTERS]]
        else:  # all seven are decided, and this one follows the stem
            same = own == STEM
        return several | same

    def blocks(self, architecture: Architecture) -> list[Block]:
        """All seven blocks of the network, at full width, with strides for ImageNet."""
        choices = self.check(architecture)
        blocks = []
        for stage, (channels, layers, stride) in enumerate(STAGES):
            if stage not in self.stages:
                blocks.append(_FIXED[stage])
                continue
            number = 0 if self.repeated else self.stages.index(stage)
            operation, kernel, filters, more, squeeze, skip = choices[number * len(PARTS) : (number + 1) * len(PARTS)]
            blocks.append(
                Block(
                    OPERATIONS[operation],
                    KERNELS[kernel],
                    bool(squeeze),
                    tuple(SHORTCUTS)[skip],
                    rounded(channels * WIDTHS[filters]),
                    layers + LAYERS[more],
                    stride,
                )
            )
        return blocks

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        skeleton: str = "imagenet",
        width_multiplier: float = 1.0,
        head_channels: int = 1280,
        dropout: float = 0.2,
        stem: int = STEM,
        widths: Sequence[int] | None = None,
    ) -> nn.Module:
        """The network of an architecture, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: of the network, 1000 classes by default.
            skeleton: ``imagenet``, which divides the resolution by 32, or ``cifar``, by 8.
            width_multiplier: channels as a share, rounded to multiples of 8; the last convolution's are not changed.
            head_channels: of the last convolution.
            dropout: before the classifier.
            stem: channels of the first convolution.
            widths: channels of all seven blocks in the place of those that the architecture says.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes]``.

        Raises:
            ValueError: there is no such skeleton, or a number is out of range.
        """
        if skeleton not in STRIDES:
            raise ValueError(f"skeleton is '{skeleton}', allowed: {', '.join(STRIDES)}")
        if width_multiplier <= 0 or head_channels < 1 or stem < 1:
            raise ValueError("width_multiplier, head_channels and stem must be above 0")
        blocks = self.blocks(architecture)
        if widths is not None and (len(widths) != len(blocks) or min(widths) < 1):
            raise ValueError(f"widths is {list(widths)}, {len(blocks)} numbers above 0 are needed")
        stem_stride, *strides = STRIDES[skeleton]
        final = [
            Block(
                block.operation,
                block.kernel,
                block.excite,
                block.shortcut,
                scaled(block.channels if widths is None else widths[stage], width_multiplier),
                block.layers,
                strides[stage],
            )
            for stage, block in enumerate(blocks)
        ]
        return build_mnasnet(
            final,
            head.classes_or(1000),
            scaled(stem, width_multiplier),
            stem_stride,
            head_channels,
            dropout,
            head.in_channels,
        )
