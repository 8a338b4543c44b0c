"""The supernet of a network with choices, which is that very network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.choices.choice_module import shared_state
from lightning_modules.networks.choices.finding import find_choices
from lightning_modules.networks.choices.value import ThreadSelection
from lightning_modules.networks.supernet import Supernet


class ChoiceSupernet(Supernet):
    """A network whose choices follow the path of each pass; passes of several threads do not meet.

    Args:
        network: with choices; it is changed, and is this supernet's from now on.
        norm: builds what normalises feature maps in the place of its batch normalisation; None leaves that.

    Raises:
        ValueError: the network has no choices, or keeps statistics of batches that ``norm`` has nothing for.
    """

    def __init__(self, network: nn.Module, norm: Norm | None = None):
        super().__init__(lambda selection: network if norm is None else with_norms(network, norm))
        self.selection = ThreadSelection()
        found = find_choices(self.network)
        if not found:
            raise ValueError(f"{type(network).__name__} has no choices")
        for each in found:
            each.choice.selection = self.selection

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The shared weights of one architecture, by the keys of its stand-alone network."""
        return shared_state(self.network, choices)


def with_norms(network: nn.Module, norm: Norm) -> nn.Module:
    """Put other normalisation in the place of batch normalisation, inside of a network."""
    if isinstance(network, nn.BatchNorm2d):
        made: Any = norm(network.num_features)
        if hasattr(made, "eps"):  # that of the stand-alone network
            made.eps = network.eps
        return made
    if isinstance(network, nn.modules.batchnorm._BatchNorm):
        raise ValueError(f"{type(network).__name__} keeps statistics that no two paths share: use BatchNorm2d")
    for name, child in network._modules.items():
        if child is not None:
            network._modules[name] = with_norms(child, norm)
    return network
