"""Choices between modules: one of several operations, and how many of a row of blocks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_modules.networks.choices.choice_module import ChoiceModule, Condition, below, shared_state, strip
from lightning_modules.networks.choices.value import Choice, Value


class OperationChoice(ChoiceModule):
    """One of several modules that take and give tensors of the same shapes.

    A path with weights is run too: the sum of the options by them, or the chosen one times its own.

    Args:
        options: by name; names have no dot.
        name: of the decision; empty for the module's path.
    """

    def __init__(self, options: Mapping[str, nn.Module], name: str = ""):
        super().__init__()
        sizes = [sum(each.numel() for each in option.parameters()) for option in options.values()]
        order = range(len(sizes))
        largest, smallest = max(order, key=lambda k: (sizes[k], k)), min(order, key=sizes.__getitem__)
        self.choice = Choice(tuple(options), name, largest, smallest)
        self.options = nn.ModuleDict(options)

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the path's option makes of its inputs."""
        path, names = self.choice.path, self.choice.options
        if path is None:
            return self.options[self.choice.largest](*inputs)
        weights = None if path.weights is None else path.weights[self.choice.place]
        if path.choices is not None:
            index = self.choice.index_in(path.choices)
            output = self.options[names[index]](*inputs)
            return output if weights is None else output * weights[index]
        assert weights is not None
        active = range(len(names)) if path.active is None else path.active[self.choice.place]
        return functools.reduce(torch.add, (self.options[names[k]](*inputs) * weights[k] for k in active))

    def values(self) -> dict[str, Value]:
        """Which option."""
        return {"": self.choice}

    def parts(self) -> Iterator[tuple[str, nn.Module, Condition | None]]:
        """Each option is there where it is chosen."""
        for index, (name, option) in enumerate(self.options.items()):
            yield name, option, (self.choice, frozenset({index}))

    def plain(self, choices: Sequence[int]) -> nn.Module:
        """The option itself."""
        return strip(self.options[self.choice.at(choices)], choices)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The option's tensors."""
        return shared_state(self.options[self.choice.at(choices)], choices)


class DepthChoice(ChoiceModule):
    """The first few of a row of blocks.

    A path with weights is run too: the sum of what comes out behind each depth, by them.

    Args:
        blocks: one behind the other; all but the first, or all where none may be left, keep the shape.
        depths: how many may run; None for one to all. A `Choice` may be shared with other rows.
        name: of the decision; empty for the module's path.

    Raises:
        ValueError: there are fewer blocks than a depth says.
    """

    def __init__(self, blocks: Sequence[nn.Module], depths: Sequence[int] | Choice | None = None, name: str = ""):
        super().__init__()
        depths = range(1, len(blocks) + 1) if depths is None else depths
        self.choice = depths if isinstance(depths, Choice) else Choice(tuple(depths), name)
        if min(self.choice.options) < 0 or max(self.choice.options) > len(blocks):
            raise ValueError(f"depths are {list(self.choice.options)}, of {len(blocks)} blocks")
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """What the path's blocks make of a tensor."""
        path = self.choice.path
        if path is None or (path.choices is not None and path.weights is None):
            return self._run(x, int(self.choice.now))
        assert path.weights is not None
        weights = path.weights[self.choice.place]
        if path.choices is not None:
            index = self.choice.index_in(path.choices)
            return self._run(x, self.choice.options[index]) * weights[index]
        active = range(len(self.choice.options)) if path.active is None else path.active[self.choice.place]
        behind, after = {0: x}, max(self.choice.options[k] for k in active)
        for depth, block in enumerate(list(self.blocks)[:after], start=1):
            behind[depth] = block(behind[depth - 1])
        return functools.reduce(torch.add, (behind[self.choice.options[k]] * weights[k] for k in active))

    def _run(self, x: Tensor, depth: int) -> Tensor:
        for block in list(self.blocks)[:depth]:
            x = block(x)
        return x

    def values(self) -> dict[str, Value]:
        """How many blocks."""
        return {"": self.choice}

    def parts(self) -> Iterator[tuple[str, nn.Module, Condition | None]]:
        """Each block is there where the depth reaches it."""
        for number, block in enumerate(self.blocks):
            reaching = frozenset(k for k, depth in enumerate(self.choice.options) if depth > number)
            yield str(number), block, None if len(reaching) == len(self.choice.options) else (self.choice, reaching)

    def plain(self, choices: Sequence[int]) -> nn.Module:
        """The blocks that are there, one behind the other."""
        known: dict[int, nn.Module] = {}
        return nn.Sequential(*(strip(block, choices, known) for block in self._there(choices)))

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """Their tensors."""
        state: dict[str, Tensor] = {}
        for number, block in enumerate(self._there(choices)):
            state |= below(str(number), shared_state(block, choices))
        return state

    def _there(self, choices: Sequence[int]) -> list[nn.Module]:
        return list(self.blocks)[: self.choice.at(choices)]
