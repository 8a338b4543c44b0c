"""Residual backbones (CATCH, Chen et al., ECCV 2020, sec. 4.3), encoded as SM-NAS does (Yao et al., AAAI 2020)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.networks.residual import BLOCKS, ResidualFeatures, ResidualNetwork, stem_stride_of
from search.errors import nearest
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head

PLACES = ("nowhere", "start", "middle", "start and middle")
"""Where in a stage the channels double."""
_DOUBLINGS = (0, 1, 1, 2)
_REST = 3
"""The stage that takes the blocks that the others leave: the one that most of ResNet's blocks stand in."""
_FORM = "basicblock_64_11-21-21-21"


@dataclass(frozen=True)
class Layout:
    """An architecture in plain words.

    Attributes:
        block: one of `BLOCKS`.
        base_channels: width of the first block.
        blocks: number of blocks of each stage.
        doublings: for each stage the blocks, counted from 0, at which the width doubles.
    """

    block: str
    base_channels: int
    blocks: tuple[int, ...]
    doublings: tuple[tuple[int, ...], ...]

    @property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        """The width of each block of each stage."""
        width, stages = self.base_channels, []
        for count, doublings in zip(self.blocks, self.doublings, strict=True):
            stage = []
            for position in range(count):
                width *= 1 + (position in doublings)
                stage.append(width)
            stages.append(tuple(stage))
        return tuple(stages)


class ResidualBackbone(SearchSpace):
    """Which block, how wide, how deep, how many stages, blocks in each, and where the channels double.

    The decisions are the paper's: base channel, depth, four or five stages, blocks in each stage, and how many blocks
    have which channels. Their choices are stripped from its text. Base channels of 48 to 72 and depths of 15 to 45 are
    recalled, not verified; shallower depths are added so that the classic ResNets belong to the space. Assumed are:

    * the block (SM-NAS, which the paper follows, decides it too);
    * that the third stage takes the blocks which the others leave, so that a change of the depth or of one stage alone
      is another architecture;
    * that channels double three or four times in all (as in Huawei's Vega), in any stage at its start, at its middle
      (behind the larger half of its blocks), or at both;
    * that they are never more than one doubling ahead of the resolution: in stage ``s`` they have doubled ``s`` times
      at most, so no block costs more than four times its counterpart in a ResNet.

    What is decided about a fifth stage that is not there is fixed on the first choice. The space of the defaults has
    10,090,632 architectures, among them ResNet-18, -34, -50 and -101.

    The canonical string is SM-NAS', such as ``basicblock_64_11-21-21-21`` (ResNet-18): block, base channel, and a digit
    for each block: 2 halves the resolution and so begins a stage, 1 keeps it, and behind each ``-`` the channels have
    doubled.

    Args:
        block_types: ``basicblock``, ``bottleneck`` or both.
        base_channels: widths of the first block to choose from. With 8 to 24 a network trains on two CPU cores.
        depths: numbers of blocks in all to choose from.
        stages: 4, 5 or both. Each stage but the first halves the resolution.
        blocks_per_stage: numbers of blocks of a stage to choose from, for all stages but the third.
        doublings: how often the channels may double in all.
        stem: of the networks unless `build` says otherwise: ``imagenet``, which quarters the resolution, or ``small``,
            for small images.
        stem_stride: 1 or 2, of the small stem.

    Raises:
        ValueError: an argument is out of range, or not every depth or number of stages has an architecture.
    """

    name = "residual_backbone"

    def __init__(
        self,
        block_types: Sequence[Literal["basicblock", "bottleneck"]] = ("basicblock", "bottleneck"),
        base_channels: Sequence[int] = (48, 56, 64, 72),
        depths: Sequence[int] = (8, 12, 16, 20, 24, 28, 33, 39, 45),
        stages: Sequence[int] = (4, 5),
        blocks_per_stage: Sequence[int] = (1, 2, 3, 4, 6, 8),
        doublings: Sequence[int] = (3, 4),
        stem: Literal["imagenet", "small"] = "imagenet",
        stem_stride: int | None = None,
    ):
        if not block_types or len(set(block_types)) < len(block_types):
            raise ValueError(f"{self.name}: block_types is {list(block_types)}, allowed: different ones, at least one")
        for block in block_types:
            _check_member("block_types", block, tuple(BLOCKS))
        self.block_types = tuple(block_types)
        self.base_channels = _sorted("base_channels", base_channels, 1)
        self.depths = _sorted("depths", depths, 1)
        self.stages = _sorted("stages", stages, 4, 5)
        self.blocks_per_stage = _sorted("blocks_per_stage", blocks_per_stage, 1)
        self.doublings = _sorted("doublings", doublings, 0, self.stages[-1])
        self.stem, self.stem_stride = stem, stem_stride
        stem_stride_of(stem, stem_stride)
        needed = (self.stages[0] - 1) * self.blocks_per_stage[0] + 1
        if self.depths[0] < needed:
            raise ValueError(
                f"{self.name}: depths: {self.depths[0]} blocks do not fill {self.stages[0]} stages, {needed} do with "
                f"blocks_per_stage from {self.blocks_per_stage[0]}"
            )
        if self.doublings[0] >= self.stages[0]:
            raise ValueError(
                f"{self.name}: doublings: {self.doublings[0]} do not fit into {self.stages[0]} stages of one block; "
                f"one of the numbers must be {self.stages[0] - 1} or less"
            )
        numbers = range(1, self.stages[-1] + 1)
        self._counted = tuple(stage for stage in numbers if stage != _REST)
        self._first_count, self._first_place = 4, 4 + len(self._counted)
        self.decisions = (
            Decision("block", self.block_types),
            Decision("base channels", tuple(map(str, self.base_channels))),
            Decision("depth", tuple(map(str, self.depths))),
            Decision("stages", tuple(map(str, self.stages))),
            *(Decision(f"blocks of stage {stage}", tuple(map(str, self.blocks_per_stage))) for stage in self._counted),
            *(Decision(f"doubling in stage {stage}", PLACES) for stage in numbers),
        )

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {"width": 0.125}

    # ---- which architectures there are -----------------------------------------------------------------------------

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """All that the depth has blocks for, and that leads to an allowed number of doublings; as for every space."""
        decided = prefix.shape[-1]
        valid = super().valid_choices(prefix)
        if decided < 3:
            return valid
        depth = _look_up(self.depths, prefix[..., 2])
        least = self.blocks_per_stage[0]
        if decided == 3:
            stages = torch.tensor(self.stages, device=prefix.device)
            return valid & ((stages - 1) * least + 1 <= depth.unsqueeze(-1))
        stages = _look_up(self.stages, prefix[..., 3])
        if decided < self._first_place:
            return valid & self._valid_counts(prefix, depth, stages)
        return valid & self._valid_places(prefix, depth, stages)

    def _valid_counts(self, prefix: Tensor, depth: Tensor, stages: Tensor) -> Tensor:
        """Numbers of blocks that leave the stages to come their least number and the third at least one."""
        done = prefix.shape[-1] - self._first_count
        used = _look_up(self.blocks_per_stage, prefix[..., self._first_count :]).sum(-1)
        to_come = stages - 1 - (done + 1)
        left = depth - used - to_come * self.blocks_per_stage[0] - 1
        counts = torch.tensor(self.blocks_per_stage, device=prefix.device)
        absent = (self._counted[done] > stages).unsqueeze(-1)
        return torch.where(absent, counts == counts[0], counts <= left.unsqueeze(-1))

    def _valid_places(self, prefix: Tensor, depth: Tensor, stages: Tensor) -> Tensor:
        """Doublings that a stage has room for, that are not too early, and after which the total can still be met."""
        counts = self._blocks(prefix, depth, stages)
        done = prefix.shape[-1] - self._first_place
        stage = done + 1
        table = torch.tensor(_DOUBLINGS, device=prefix.device)
        total = table[prefix[..., self._first_place :]].sum(-1, keepdim=True) + table
        room = counts[..., done : done + 1] >= torch.tensor((0, 1, 2, 2), device=prefix.device)
        if stage == 1:  # before the first block there is nothing to double
            room = room & torch.tensor((True, False, True, False), device=prefix.device)
        # Each later stage can add any number up to its most, so every total from this one to `most` can be met.
        most = total
        for later in range(stage + 1, self.stages[-1] + 1):
            most = (most + counts[..., later - 1 : later].clamp(max=2)).clamp(max=later)
        met = torch.stack([(total <= number) & (number <= most) for number in self.doublings]).any(0)
        return room & (total <= stage) & met

    def _blocks(self, prefix: Tensor, depth: Tensor, stages: Tensor) -> Tensor:
        """Number of blocks of each stage, 0 for one that is not there: int64 ``[..., stages]``."""
        chosen = _look_up(self.blocks_per_stage, prefix[..., self._first_count : self._first_place])
        chosen = chosen * (torch.tensor(self._counted, device=prefix.device) <= stages.unsqueeze(-1))
        rest = depth - chosen.sum(-1)
        return torch.cat([chosen[..., : _REST - 1], rest.unsqueeze(-1), chosen[..., _REST - 1 :]], dim=-1)

    # ---- reading and writing ---------------------------------------------------------------------------------------

    def layout(self, architecture: Architecture) -> Layout:
        """Blocks, stages and widths of an architecture.

        Raises:
            ValueError: not an architecture of this space.
        """
        with torch.device("cpu"):  # a network may be built under torch.device("meta"), which has no values to check
            choices = torch.tensor(self.check(architecture))
            depth, stages = torch.tensor(self.depths[choices[2]]), torch.tensor(self.stages[choices[3]])
            blocks = tuple(count for count in self._blocks(choices, depth, stages).tolist() if count)
        places = choices[self._first_place :].tolist()
        return Layout(
            self.block_types[choices[0]],
            self.base_channels[choices[1]],
            blocks,
            tuple(_doubled_blocks(place, count) for place, count in zip(places, blocks, strict=False)),
        )

    def format(self, architecture: Architecture) -> str:
        """The string of SM-NAS; `parse` reads it back."""
        layout = self.layout(architecture)
        code = ""
        for stage, (count, doublings) in enumerate(zip(layout.blocks, layout.doublings, strict=True)):
            for block in range(count):
                code += "-" * (block in doublings) + ("2" if stage and not block else "1")
        return f"{layout.block}_{layout.base_channels}_{code}"

    def parse(self, text: str) -> Architecture:
        """The architecture of a string of SM-NAS.

        Raises:
            ValueError: the string is not one of this space; says which part is wrong.
        """
        found = re.fullmatch(r"([a-z]+)_([0-9]+)_(1(?:-?[12])*)", text)
        if found is None:
            raise ValueError(
                f"{self.name}: '{text}' must read as in {_FORM}: block, base channel, and 1, 2 and single '-' "
                "of which the first and the last are digits, the first a 1"
            )
        block, base, code = found.groups()
        # A stage begins at a 2, together with the doubling before it.
        stages = re.findall(r"^1(?:-?1)*|-?2(?:-?1)*", code)
        blocks = [len(stage.replace("-", "")) for stage in stages]
        choices = [
            self._index(text, "block", block, self.block_types),
            self._index(text, "base channel", int(base), self.base_channels),
            self._index(text, "number of blocks", sum(blocks), self.depths),
            self._index(text, "number of stages", len(stages), self.stages),
        ]
        for stage in self._counted:
            # The decisions about a stage that is not there keep their first choice.
            counts = self.blocks_per_stage
            count = blocks[stage - 1] if stage <= len(stages) else counts[0]
            choices.append(self._index(text, f"number of blocks of stage {stage}", count, counts))
        self._index(text, "number of doublings", code.count("-"), self.doublings)
        total = 0
        for number, stage in enumerate([*stages, *[""] * (self.stages[-1] - len(stages))], start=1):
            doubled = tuple(match.start() - k for k, match in enumerate(re.finditer("-", stage)))
            choices.append(self._place(text, number, doubled, len(stage) - len(doubled)))
            total += len(doubled)
            if total > number:
                raise ValueError(
                    f"{self.name}: the channels of '{text}' have doubled {total} times by the end of stage {number}, "
                    f"allowed: up to {number}"
                )
        return self.check(choices)

    def _index(self, text: str, what: str, value: object, allowed: Sequence[object]) -> int:
        if value not in allowed:
            hint = nearest(value, allowed, "") if isinstance(value, str) else ""
            names = ", ".join(map(str, allowed))
            raise ValueError(f"{self.name}: the {what} of '{text}' is {value}, allowed: {names}{hint}")
        return allowed.index(value)

    def _place(self, text: str, stage: int, doubled: tuple[int, ...], count: int) -> int:
        places = [_doubled_blocks(place, count) for place in range(len(PLACES))]
        if doubled not in places:
            raise ValueError(
                f"{self.name}: in stage {stage} of '{text}' the channels double before block "
                f"{' and '.join(str(block + 1) for block in doubled)} of {count}, allowed: 1, {(count + 1) // 2 + 1}"
            )
        return places.index(doubled)

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """A chain of stages with their resolutions; a label says how many blocks of which width."""
        layout = self.layout(architecture)
        stride = stem_stride_of(self.stem, self.stem_stride)
        labels = [f"{layout.base_channels} channels"]
        for stage, widths in enumerate(layout.widths):
            runs = ", ".join(f"{len(list(run))} x {width}" for width, run in itertools.groupby(widths))
            labels.append(runs if stage else f"{layout.block} {runs}")
        stages = (f"stage {stage + 1} (1/{stride * 2**stage})" for stage in range(len(layout.blocks)))
        names = ["in", "stem", *stages]
        return [Edge(a, b, label) for (a, b), label in zip(itertools.pairwise(names), labels, strict=True)]

    # ---- networks --------------------------------------------------------------------------------------------------

    def build(
        self,
        architecture: Architecture,
        head: Head = OWN_HEAD,
        width: float = 1.0,
        stem: Literal["imagenet", "small"] | None = None,
        stem_stride: int | None = None,
        zero_init_residual: bool = False,
    ) -> ResidualNetwork:
        """The classifier of that architecture, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: of the network; 0 classes where a module takes the backbone and adds its own head.
            width: the base channel is multiplied by this and rounded.
            stem: ``imagenet``, of stride 4, or ``small``, one 3x3 convolution; None for the space's.
            stem_stride: 1 or 2, of the small stem; None for the space's.
            zero_init_residual: start every residual branch as zero.

        Returns:
            A module from ``[batch, in_channels, height, width]`` to logits ``[batch, classes]`` whose ``backbone``
            gives the feature maps of all stages.

        Raises:
            ValueError: not an architecture of this space, or an argument is out of range.
        """
        layout = self.layout(architecture)
        base = round(layout.base_channels * width)
        if base < 1:
            raise ValueError(f"{self.name}: width is {width}, which leaves no channel of {layout.base_channels}")
        layout = Layout(layout.block, base, layout.blocks, layout.doublings)
        if stem is None:
            stem, stem_stride = self.stem, self.stem_stride if stem_stride is None else stem_stride
        features = ResidualFeatures(
            layout.block, layout.widths, head.in_channels, stem, stem_stride, zero_init_residual
        )
        return ResidualNetwork(features, head.classes_or(10))


def _doubled_blocks(place: int, count: int) -> tuple[int, ...]:
    """The blocks of a stage, counted from 0, at which the channels double."""
    return ((), (0,), ((count + 1) // 2,), (0, (count + 1) // 2))[place]


def _look_up(values: Sequence[int], choices: Tensor) -> Tensor:
    return torch.tensor(values, device=choices.device)[choices]


def _check_member(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        names = ", ".join(allowed)
        raise ValueError(
            f"{ResidualBackbone.name}: {key}: '{value}' is not one of {names}{nearest(value, allowed, '')}"
        )


def _sorted(key: str, values: Sequence[int], least: int, most: int | None = None) -> tuple[int, ...]:
    """Different numbers in ascending order.

    Raises:
        ValueError: there is none, one twice, or one out of range.
    """
    allowed = f"{least} or more" if most is None else f"{least} to {most}"
    if not values or len(set(values)) < len(values) or min(values) < least or (most is not None and max(values) > most):
        raise ValueError(f"{ResidualBackbone.name}: {key} is {list(values)}, allowed: different numbers, {allowed}")
    return tuple(sorted(values))
