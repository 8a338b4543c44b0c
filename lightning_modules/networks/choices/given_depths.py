"""Choices of depth in a network that somebody else wrote: which blocks may be left out is seen by running it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TypeGuard

import torch
from torch import Tensor, nn

from lightning_modules.networks.choices.operations import DepthChoice


def with_depth_choices(network: nn.Module, images: Tensor | None = None, least: int = 1) -> nn.Module:
    """A network whose stages may have fewer blocks.

    A stage is a row of blocks of one class inside of an `nn.Sequential`, all but the first of which keep the shape of
    what they read. A block is a module with others inside and a ``forward`` of its own, such as torchvision's
    ``BasicBlock`` and ``InvertedResidual``.

    Args:
        network: is changed; its weights stay.
        images: an example of what it reads; None for one of 3 channels, 64 pixels wide.
        least: blocks that stay in each stage.

    Returns:
        The network.

    Raises:
        ValueError: it has no stage with more than ``least`` blocks.
    """
    shapes = _shapes(network, torch.zeros(1, 3, 64, 64) if images is None else images)
    rows = [(row, path) for path, row in network.named_modules() if _is_row(row)]
    changed = False
    for row, path in reversed(rows):  # inner rows come first
        for first, end in reversed(list(_stages(row, shapes))):
            if end - first <= least:
                continue
            choice = DepthChoice([row[k] for k in range(first, end)], range(least, end - first + 1))
            changed = True
            if first == 0 and end == len(row) and path:
                owner, _, name = path.rpartition(".")
                setattr(network.get_submodule(owner), name, choice)
            else:
                row[first] = choice
                del row[first + 1 : end]
    if not changed:
        raise ValueError(f"{type(network).__name__} has no row of blocks that could be left out")
    return network


def _shapes(network: nn.Module, images: Tensor) -> dict[int, tuple[torch.Size, torch.Size]]:
    """What every module that runs once reads and gives, by the numbers of the objects."""
    seen: dict[int, tuple[torch.Size, torch.Size]] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            seen[id(module)] = (inputs[0].shape, output.shape)

    was_training = network.training
    with ExitStack() as stack, torch.no_grad():
        for module in network.modules():
            stack.enter_context(module.register_forward_hook(look))
        network.eval()(images)
    network.train(was_training)
    return seen


def _stages(row: nn.Sequential, shapes: dict[int, tuple[torch.Size, torch.Size]]) -> Iterator[tuple[int, int]]:
    """Where each stage begins, and behind which block it ends."""
    blocks = list(row)
    begin = 0
    for place in range(1, len(blocks) + 1):
        if place < len(blocks) and _follows(blocks[place - 1], blocks[place], shapes):
            continue
        if _is_block(blocks[begin]):
            yield begin, place
        begin = place


def _follows(before: nn.Module, block: nn.Module, shapes: dict[int, tuple[torch.Size, torch.Size]]) -> bool:
    read, given = shapes.get(id(block), (None, 0))
    return _is_block(block) and type(before) is type(block) and read == given


def _is_row(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether a module does nothing but run others one behind the other."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _is_block(module: nn.Module) -> bool:
    return not isinstance(module, nn.Sequential) and any(True for _ in module.children())
