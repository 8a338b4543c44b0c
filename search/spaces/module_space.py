"""A space declared inside of any network: its own, a user's, or one of torchvision."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.choices.small_network import SmallNetwork
from search.spaces.declared import DeclaredSpace
from search.spaces.head import Head


class ModuleSpace(DeclaredSpace):
    """The choices of a network's modules (`lightning_modules.networks.choices`), whoever wrote it.

    A recipe names the network's class, which is built anew for every architecture; ``num_classes`` and
    ``in_channels``, where its constructor takes them, are those of the data. In Python it may also be a network that
    is there: it is copied and initialised by what its modules do in ``reset_parameters``, and its classes are its own.

    Args:
        network: makes the network; by default a small one that shows every kind of choice.
        name: of the space, in lower case; empty for that of the network's class.
        resolution: height and width of the images of an example.
        image_multiple: images must be multiples of this many pixels.
        classifies: whether it gives logits.

    Raises:
        ValueError: it has no choices, or two of one name.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module] = SmallNetwork,
        name: str = "",
        resolution: int = 32,
        image_multiple: int = 1,
        classifies: bool = True,
    ):
        made_by = type(network) if isinstance(network, nn.Module) else _made_by(network)
        self._network, self.resolution = network, resolution
        self._takes = () if isinstance(network, nn.Module) else _taken(network)
        self.name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", made_by.__name__).lower()
        self.image_multiple, self.classifies = image_multiple, classifies
        _ = self.decisions  # a network without choices is refused here

    def example_input(self, head: Head = Head()) -> Tensor:  # noqa: B008 - frozen
        """Four images of zeros."""
        return torch.zeros(4, head.in_channels, self.resolution, self.resolution)

    def network(self, head: Head) -> nn.Module:
        """The network with its choices, freshly initialised."""
        if isinstance(self._network, nn.Module):
            made = copy.deepcopy(self._network)
            for module in made.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
            return made
        known = {"in_channels": head.in_channels} | ({} if head.classes is None else {"num_classes": head.classes})
        return self._network(**{name: value for name, value in known.items() if name in self._takes})


def _made_by(network: Callable[..., Any]) -> Any:
    """The class, or whatever has a name, behind what a recipe or a caller gives."""
    if isinstance(network, functools.partial):
        # A recipe's hands its class to a function that makes the object.
        classes = [] if inspect.isclass(network.func) else [each for each in network.args if inspect.isclass(each)]
        return classes[-1] if classes else _made_by(network.func)
    return network


def _taken(network: Callable[..., Any]) -> tuple[str, ...]:
    """The arguments that it takes by name."""
    parameters = inspect.signature(_made_by(network)).parameters.values()
    return tuple(each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY))
