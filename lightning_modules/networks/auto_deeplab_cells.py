"""The cells of Auto-DeepLab (Liu et al., CVPR 2019): of one architecture, and with every operation on every edge.

A cell reads the outputs of the two cells before it, each brought to the cell's channels by a 1x1 convolution: state 0
is the last one, state 1 the one before. Each block adds up two operations on two states and is a state itself; the
output is all blocks side by side. Where a cell goes down a level, operations on states 0 and 1 halve the resolution.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_modules.networks.auto_deeplab_operations import OPERATION_NAMES, OPERATIONS, ZERO, Skip, halved
from lightning_modules.networks.cells import Norm, ReLUConvNorm, Zero
from lightning_modules.networks.deeplab_head import resize
from lightning_modules.networks.drop_path import DropPath

INPUTS = 2
"""Cell outputs that a cell reads."""


@dataclass(frozen=True)
class Block:
    """What one block of a cell computes: an operation on each of two states.

    Attributes:
        sources: the two states; they may be the same one.
        operations: the operation on each, an index of `OPERATION_NAMES`.
    """

    sources: tuple[int, int]
    operations: tuple[int, int]


def blocks_of(choices: Sequence[int]) -> tuple[Block, ...]:
    """The blocks of a cell's choices, four each: both states, then the operation on each."""
    return tuple(
        Block((choices[k], choices[k + 1]), (choices[k + 2], choices[k + 3])) for k in range(0, len(choices), 4)
    )


def edge_of(block: int, source: int) -> int:
    """The number of the edge from a state to a block; both from 0."""
    return block * (block + 2 * INPUTS - 1) // 2 + source


def fit(in_channels: int, filters: int, norm: Norm) -> nn.Module:
    """Brings an output of another cell to a cell's channels."""
    return ReLUConvNorm(in_channels, filters, 1, norm=norm)


def fit_before(in_channels: int, filters: int, norm: Norm) -> nn.Module:
    """Likewise for the output before the last one, which stays as it is where it has the channels already."""
    return nn.Identity() if in_channels == filters else fit(in_channels, filters, norm)


class Cell(nn.Module):
    """A cell of one architecture.

    Args:
        blocks: what its blocks compute.
        last: channels of the last cell's output.
        before: channels of the output before that one.
        filters: channels of each block.
        stride: 2 where the cell goes down a level, else 1.
        norm: builds the normalisation layers.
        keep: share of operations that scheduled drop path keeps at the end of a training; 1 for all.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        last: int,
        before: int,
        filters: int,
        stride: int,
        norm: Norm,
        keep: float = 1.0,
    ):
        super().__init__()
        self.fit_last, self.fit_before = fit(last, filters, norm), fit_before(before, filters, norm)
        self.operations = nn.ModuleList(
            OPERATIONS[OPERATION_NAMES[operation]](filters, norm, stride == 2 and source < INPUTS)
            for block in blocks
            for source, operation in zip(block.sources, block.operations, strict=True)
        )
        self.drop_path = DropPath(1 - keep)
        self._sources, self.stride = [block.sources for block in blocks], stride

    def forward(self, last: Tensor, before: Tensor) -> Tensor:
        """Outputs of the two cells before, to its own.

        Args:
            last: ``[batch, channels, height, width]``, for a cell that goes up at its resolution already.
            before: of any resolution.

        Returns:
            ``[batch, blocks * filters, height / stride, width / stride]``.
        """
        states = [self.fit_last(last), self.fit_before(resize(before, last.shape[2:]))]
        for block, sources in enumerate(self._sources):
            terms = []
            for place, source in enumerate(sources):
                operation = self.operations[2 * block + place]
                if not isinstance(operation, Zero):
                    output = operation(states[source], self.stride if source < INPUTS else 1)
                    terms.append(output if isinstance(operation, Skip) else self.drop_path(output))
            states.append(total(terms, states[0], self.stride))
        return torch.cat(states[INPUTS:], dim=1)


class SuperCell(nn.Module):
    """A cell with every operation on every edge, for all the cells that may come before it.

    Args:
        blocks: how many.
        last: what its last input may be, by name, and the channels of each.
        before: likewise of the input before.
        filters: channels of each block.
        norm: builds the normalisation layers.
        halves: whether the cell may go down a level.
    """

    def __init__(
        self, blocks: int, last: dict[str, int], before: dict[str, int], filters: int, norm: Norm, halves: bool
    ):
        super().__init__()
        self.fit_last = nn.ModuleDict({name: fit(channels, filters, norm) for name, channels in last.items()})
        self.fit_before = nn.ModuleDict({name: fit_before(width, filters, norm) for name, width in before.items()})
        self.operations = nn.ModuleList(
            nn.ModuleList(build(filters, norm, halves and source < INPUTS) for build in OPERATIONS.values())
            for block in range(blocks)
            for source in range(block + INPUTS)
        )
        self.blocks = blocks

    def states(self, last: Tensor, last_name: str, before: Tensor | None, before_name: str) -> list[Tensor | None]:
        """Both inputs at the cell's channels; None where there is none before the last."""
        fitted = None if before is None else self.fit_before[before_name](resize(before, last.shape[2:]))
        return [self.fit_last[last_name](last), fitted]

    def chosen(
        self,
        states: Sequence[Tensor | None],
        stride: int,
        blocks: Sequence[Block],
        weights: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The output of one architecture's blocks; with weights each operation times its own.

        Args:
            states: both inputs, as `states` gives them.
            stride: 2 to go down a level.
            blocks: of the architecture.
            weights: ``[states, operations]`` for each block.
        """
        found = list(states)
        for number, block in enumerate(blocks):
            terms = []
            for source, operation in zip(block.sources, block.operations, strict=True):
                if operation != ZERO:
                    output = self._message(number, source, operation, found[source], stride)
                    terms.append(output if weights is None else output * weights[number][source, operation])
            found.append(total(terms, states[0], stride))
        return torch.cat(found[INPUTS:], dim=1)  # type: ignore[arg-type]

    def relaxed(self, states: Sequence[Tensor | None], stride: int, weights: Sequence[Tensor]) -> Tensor:
        """The output with every operation on every state that is there, each times its weight (Auto-DeepLab, eq. 4)."""
        found = list(states)
        for number in range(self.blocks):
            terms = [
                self._message(number, source, operation, state, stride) * weights[number][source, operation]
                for source, state in enumerate(found)
                if state is not None
                for operation in range(len(OPERATIONS))
                if operation != ZERO
            ]
            found.append(total(terms, states[0], stride))
        return torch.cat(found[INPUTS:], dim=1)  # type: ignore[arg-type]

    def _message(self, block: int, source: int, operation: int, state: Tensor | None, stride: int) -> Tensor:
        edge: nn.ModuleList = self.operations[edge_of(block, source)]  # type: ignore[assignment]
        return edge[operation](state, stride if source < INPUTS else 1)

    def standalone_state(
        self, stride: int, last_name: str, before_name: str, blocks: Sequence[Block]
    ) -> dict[str, Tensor]:
        """The tensors that the `Cell` of these blocks has, by its keys."""
        state = {f"fit_last.{key}": value for key, value in self.fit_last[last_name].state_dict().items()}
        state |= {f"fit_before.{key}": value for key, value in self.fit_before[before_name].state_dict().items()}
        for number, block in enumerate(blocks):
            for place, (source, operation) in enumerate(zip(block.sources, block.operations, strict=True)):
                module = self.operations[edge_of(number, source)][operation]  # type: ignore[index]
                if isinstance(module, Skip) and not (stride == 2 and source < INPUTS):
                    continue  # its reduction is that of cells that go down
                prefix = f"operations.{2 * number + place}."
                state |= {f"{prefix}{key}": value for key, value in module.state_dict().items()}
        return state


def total(terms: Sequence[Tensor], state: Tensor | None, stride: int) -> Tensor:
    """The sum of what operations gave; zeros of the right size where there are none."""
    if terms:
        return functools.reduce(torch.add, terms)
    assert state is not None
    return state.new_zeros(*state.shape[:2], *(halved(state.shape[2:]) if stride == 2 else state.shape[2:]))
