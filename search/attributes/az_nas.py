"""AZ-NAS (Lee and Ham, CVPR 2024): three numbers that are read off the feature maps of a network's blocks.

All three share one pass of Gaussian noise through the network, whose weights are drawn anew by He's rule. AZ-NAS'
fourth number, complexity, is `search.attributes.flops.Flops`; their ranks are combined by
`search.attributes.combination`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy

IMAGES = 64
"""Of noise (the published setting in NAS-Bench-201)."""
_LEAVES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Containers, which are opened to find blocks."""


@dataclass(frozen=True)
class Readings:
    """What the feature maps of a network's blocks give.

    Attributes:
        entropies: of the principal components of each block's feature map; see `entropy`.
        conductions: of each block but the first; see `conduction`.
    """

    entropies: list[float]
    conductions: list[float]


class Expressivity(Proxy):
    """How evenly the features of blocks fill their space: the sum of their entropies (AZ-NAS, eq. 3)."""

    name = "expressivity"
    labels = False

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        return sum(readings(probe).entropies)


class Progressivity(Proxy):
    """By how much blocks add to what is expressed: the least growth of the entropy between blocks (AZ-NAS, eq. 4)."""

    name = "progressivity"
    labels = False

    def score(self, probe: Probe) -> float:
        """The value of a network; NaN where there is one block."""
        entropies = readings(probe).entropies
        growth = [later - earlier for earlier, later in itertools.pairwise(entropies)]
        return math.nan if not growth or any(map(math.isnan, growth)) else min(growth)


class Trainability(Proxy):
    """How well blocks pass gradients on: the mean of 2 - s - 1 / s, ``s`` the spectral norm of a block (AZ-NAS, eq. 7).

    It is at most 0, which it is where gradients neither vanish nor explode. Networks in which a block passes on what it
    gets, as it is, have no value and rank last, as published.
    """

    name = "trainability"
    labels = False

    def score(self, probe: Probe) -> float:
        """The value of a network; NaN where there is one block."""
        found = readings(probe).conductions
        return sum(2 - norm - 1 / (norm + 1e-6) for norm in found) / len(found) if found else math.nan


def readings(probe: Probe) -> Readings:
    """What all three are made of, computed once a probe."""
    found = vars(probe).get("az_nas")
    if found is None:
        generator = probe.generator("az-nas")
        network = probe.copy()
        redraw(network, generator)
        maps = block_maps(network, probe.noise(IMAGES, generator))
        pairs = list(itertools.pairwise(maps))
        # From the end, so that a block's graph is let go as soon as it was used.
        found = Readings(
            [entropy(each) for each in maps], [conduction(a, b, generator) for a, b in reversed(pairs)][::-1]
        )
        vars(probe)["az_nas"] = found
    return found


def redraw(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights from He's normal distribution by fan-in; biases are 0, normalisation starts as nothing."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                deviation = math.sqrt(2 / module.weight[0].numel())
                module.weight.copy_(deviation * torch.randn(module.weight.shape, generator=generator))
            elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)) and module.weight is not None:
                module.weight.fill_(1)
            else:
                continue
            if module.bias is not None:
                module.bias.zero_()


def block_maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    """The feature maps of a network's blocks, in the order in which they were made, with the graph that made them.

    A block is a module that gives one feature map ``[batch, channels, height, width]`` and more than normalises or
    rectifies; the network itself, containers of such modules, and modules that give something else are opened. In
    NAS-Bench-201 these are the stem, the cells and the reductions, as in AZ-NAS.
    """
    outputs: dict[nn.Module, tuple[int, Any]] = {}
    hooks = [
        module.register_forward_hook(lambda made, _, output: outputs.update({made: (len(outputs), output)}))
        for module in network.modules()
    ]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    found: list[tuple[int, Tensor]] = []
    waiting = list(network.children())
    while waiting:
        module = waiting.pop()
        place, output = outputs.get(module, (0, None))
        inside = list(module.children())
        single = isinstance(output, Tensor) and output.dim() == 4
        if single and not _is_container(module):
            if inside or isinstance(module, nn.Conv2d):
                found.append((place, output))
        else:
            waiting += inside
    return [output for _, output in sorted(found, key=lambda each: each[0])]


def _is_container(module: nn.Module) -> bool:
    """Whether it holds blocks, or is one made of single layers."""
    if not isinstance(module, _LEAVES):
        return False
    return not any(isinstance(child, nn.Conv2d) for child in module.children())


def entropy(features: Tensor) -> float:
    """The entropy of the normalised eigenvalues of the covariance of channels (AZ-NAS, eq. 1 and 2).

    Args:
        features: ``[batch, channels, height, width]``; places of all images are observations.
    """
    flat = features.detach().transpose(0, 1).flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    # Rounding makes some of the zeros negative.
    eigenvalues = torch.linalg.eigvalsh(flat @ flat.T / flat.shape[1]).clamp(min=0)
    shares = eigenvalues / eigenvalues.sum()
    return float(-(shares * (shares + 1e-8).log()).sum())


def conduction(before: Tensor, after: Tensor, generator: torch.Generator) -> float:
    """The spectral norm of a block as its gradients show it (AZ-NAS, eq. 5 and 6).

    Random signs are sent back through the block; the norm is that of the matrix of mean products of what came out, by
    channel, with what was sent in. Where a block changes the resolution, the places that are one on the other side of
    it are channels.

    Args:
        before: the feature map that the block got, ``[batch, channels, height, width]``.
        after: the one that it gave.
        generator: of the signs.

    Returns:
        NaN for a block that gives what it gets; 0 for one that passes nothing on.
    """
    signs = (2 * torch.randint(0, 2, after.shape, generator=generator) - 1).to(after)
    if not (after.requires_grad and before.requires_grad):  # nothing comes through a cell without connections
        return 0.0
    (back,) = torch.autograd.grad(after, before, signs, retain_graph=True, allow_unused=True)
    if back is None:
        return 0.0
    if back.shape == signs.shape and torch.equal(back, signs):
        return math.nan
    height = min(back.shape[2], signs.shape[2])
    width = min(back.shape[3], signs.shape[3])
    sent, came = (_at(each, height, width).transpose(0, 1).flatten(1) for each in (signs, back))
    return float(torch.linalg.matrix_norm(came @ sent.T / sent.shape[1], 2))


def _at(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps at a lower resolution, places that become one as channels; what is missing at the far edges is 0."""
    factor = max(-(-maps.shape[2] // height), -(-maps.shape[3] // width))
    if factor == 1:
        return maps
    missing = (factor * width - maps.shape[3], factor * height - maps.shape[2])
    return nn.functional.pixel_unshuffle(nn.functional.pad(maps, (0, missing[0], 0, missing[1])), factor)
