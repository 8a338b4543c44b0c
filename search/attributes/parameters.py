"""How many weights a network has."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_modules.networks.cost.complexity import count_parameters
from search.attributes.network import NetworkAttribute
from search.spaces.base import SearchSpace


class Parameters(NetworkAttribute):
    """Parameters of the network, trainable and frozen ones; no weights are made to count them.

    Args:
        space: builds the networks.
        build: arguments of `SearchSpace.build_from`, such as the width; None for its defaults.
    """

    name = "parameters"
    shows_images = False

    def __init__(self, space: SearchSpace, build: dict[str, Any] | None = None):
        super().__init__(space, build)

    def read(self, network: nn.Module) -> float:
        """Their number."""
        return float(count_parameters(network))
