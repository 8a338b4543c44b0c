"""Several inverted residuals on one input, with their convolutions of the same kind in one call.

A supernet that runs every block of a layer spends much of its time between small convolutions. Their weights, one
behind another, make one convolution of the same numbers; so do depthwise convolutions of one kernel, and normalisations
by the statistics of the batch. What narrows a block reads a middle of its own and is called for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.mobile_blocks import InvertedResidual


def branches(blocks: Sequence[InvertedResidual], x: Tensor) -> list[Tensor]:
    """What each block makes of an input, before that is added where it is a residual.

    Args:
        blocks: of one shape, alike or not in kernel, expansion and groups.
        x: ``[batch, in_channels, height, width]``.

    Returns:
        ``[batch, out_channels, height / stride, width / stride]`` each.
    """
    middles = [block.shuffle(y) for block, y in zip(blocks, _widened(blocks, x), strict=True)]
    for kernel in dict.fromkeys(_convolution(block.depthwise).kernel_size for block in blocks):
        own = [k for k, block in enumerate(blocks) if _convolution(block.depthwise).kernel_size == kernel]
        y = _together([blocks[k].depthwise for k in own], torch.cat([middles[k] for k in own], dim=1))
        for k, part in zip(own, y.split([middles[k].shape[1] for k in own], dim=1), strict=True):
            middles[k] = part
    narrow = [_convolution(block.narrow)(middle) for block, middle in zip(blocks, middles, strict=True)]
    norms = [block.narrow[1] for block in blocks]
    return list(_normalised(norms, torch.cat(narrow, dim=1)).chunk(len(blocks), dim=1))


def _widened(blocks: Sequence[InvertedResidual], x: Tensor) -> list[Tensor]:
    """What the first convolution of each block makes of the input; the input itself where there is none."""
    found = [x] * len(blocks)
    widening = [k for k, block in enumerate(blocks) if isinstance(block.widen, nn.Sequential)]
    alike = [k for k in widening if _convolution(blocks[k].widen).groups == 1]
    if alike:
        parts = [cast(nn.Sequential, blocks[k].widen) for k in alike]
        sizes = [_convolution(part).out_channels for part in parts]
        for k, y in zip(alike, _together(parts, x).split(sizes, dim=1), strict=True):
            found[k] = y
    for k in widening:
        if k not in alike:
            found[k] = blocks[k].widen(x)
    return found


def _together(parts: Sequence[nn.Sequential], x: Tensor) -> Tensor:
    """Convolution, normalisation and ReLU of several parts, all depthwise or all of one group, as one."""
    convolutions = [_convolution(part) for part in parts]
    weight, like = torch.cat([each.weight for each in convolutions]), convolutions[0]
    groups = 1 if like.groups == 1 else len(weight)
    y = functional.conv2d(x, weight, None, like.stride, like.padding, 1, groups)
    return _normalised([part[1] for part in parts], y).relu()


def _normalised(norms: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Several normalisations, each of channels of its own, which lie one behind another in ``x``."""
    plain = [norm for norm in norms if isinstance(norm, BatchStatistics) and norm.looks_at_this_batch_alone]
    if len(plain) == len(norms) and len({(norm.eps, norm.weight is None) for norm in plain}) == 1:
        weight, bias = (
            None if plain[0].weight is None else torch.cat([getattr(norm, name) for norm in plain])
            for name in ("weight", "bias")
        )
        return functional.batch_norm(x, None, None, weight, bias, True, 0.0, plain[0].eps)
    sizes = [int(getattr(norm, "channels", 0) or getattr(norm, "num_features", 0)) for norm in norms]
    return torch.cat([norm(part) for norm, part in zip(norms, x.split(sizes, dim=1), strict=True)], dim=1)


def _convolution(part: nn.Module) -> nn.Conv2d:
    """The first module of a part."""
    return cast(nn.Conv2d, cast(nn.Sequential, part)[0])
