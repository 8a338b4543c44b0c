"""How large and how costly a network is."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lightning_modules.networks.cells import Cell


def count_parameters(network: nn.Module) -> int:
    """Number of trainable and frozen parameters; running statistics are not parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_flops(
    network: nn.Module, input_shape: tuple[int, ...], unused: bool = True, dtype: torch.dtype | None = None
) -> int:
    """Multiply-accumulates of one forward pass on one image, as NAS-Bench-201 counts its FLOPs.

    Convolutions and linear layers count, with one operation an output for a bias. Normalisation, activations, pooling
    and sums do not. The network runs once in evaluation mode on its own device, on zeros: built under
    ``torch.device("meta")`` nothing is computed at all. Its modes, statistics and hooks are as before afterwards, and
    no random number is drawn.

    Args:
        network: takes one batch of images.
        input_shape: of one image, ``(channels, height, width)``.
        unused: also count edges of a cell that do not reach its output, as the benchmark does. False gives what a
            forward pass really costs.
        dtype: of the input; None for that of the network's weights. A network that reads words takes int64.
    """
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, _ConvTransposeNd):
            total += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, _ConvNd):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        if module.bias is not None:
            total += output.numel()

    modes = {module: module.training for module in network.modules()}
    cells = {module: module.compute_unused for module in network.modules() if isinstance(module, Cell)}
    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, _ConvNd | nn.Linear)]
    example = next(itertools.chain(network.parameters(), network.buffers()), torch.empty(0))
    # Two images, because normalisation by batch statistics refuses a single value a channel.
    images = torch.zeros(2, *input_shape, device=example.device, dtype=dtype or example.dtype)
    try:
        network.eval()
        for cell in cells:
            cell.compute_unused = unused
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
        for cell, before in cells.items():
            cell.compute_unused = before
        for module, training in modes.items():
            module.training = training
    return total // 2
