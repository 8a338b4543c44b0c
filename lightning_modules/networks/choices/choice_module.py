"""What modules with choices have in common, and how a stand-alone network is cut out of a network that has some."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from lightning_modules.networks.choices.value import Choice, Value
from lightning_modules.networks.supernet import Supernet

Condition = tuple[Choice, frozenset[int]]
"""A choice, and the options with which something is there."""


class ChoiceModule(nn.Module, ABC):
    """A module that runs what a path says, and knows the plain module of each architecture.

    Weights are made for the largest option; smaller ones are slices of them, so only these get a gradient.
    """

    @abstractmethod
    def values(self) -> dict[str, Value]:
        """What paths decide of it, by what follows the module's path in a decision's name."""

    def parts(self) -> Iterator[tuple[str, nn.Module, Condition | None]]:
        """The modules inside: name, module, and when it is there; None for always."""
        for name, child in self.named_children():
            yield name, child, None

    @abstractmethod
    def plain(self, choices: Sequence[int]) -> nn.Module:
        """The module of an architecture, without choices, freshly initialised where it has weights of its own."""

    @abstractmethod
    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The tensors of that module, by its keys."""


def strip(module: nn.Module, choices: Sequence[int], known: dict[int, nn.Module] | None = None) -> nn.Module:
    """Put the plain modules of an architecture in the place of those with choices, inside of a network.

    The network itself is changed, unless it is a choice. Attributes that are values become numbers.

    Args:
        module: the network.
        choices: the architecture; every choice has its place.
        known: what was exchanged already, by the numbers of the objects: a module in two places stays one.
    """
    known = {} if known is None else known
    if id(module) in known:
        return known[id(module)]
    if isinstance(module, ChoiceModule):
        known[id(module)] = module.plain(choices)
        return known[id(module)]
    known[id(module)] = module
    for name, child in module._modules.items():
        if child is not None:
            module._modules[name] = strip(child, choices, known)
    for name, value in vars(module).items():
        if isinstance(value, Value):
            vars(module)[name] = value.at(choices)
    return module


def shared_state(module: nn.Module, choices: Sequence[int]) -> dict[str, Tensor]:
    """The tensors of an architecture in a network with choices, by the keys of the stand-alone network."""
    if isinstance(module, ChoiceModule):
        return module.standalone_state(choices)
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    hidden = module._non_persistent_buffers_set
    state = {name: tensor.detach() for name, tensor in own if name not in hidden}
    for name, child in module._modules.items():
        if child is not None:
            state |= below(name, shared_state(child, choices))
    return state


def below(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state of a module's child, by the keys of the module."""
    return {f"{name}.{key}": tensor for key, tensor in state.items()}


def cut(network: nn.Module, choices: Sequence[int]) -> nn.Module:
    """The stand-alone network of an architecture, with copies of its shared weights; the network stays as it is.

    Out of a supernet it normalises as that does; `Supernet.hand_down` copies the weights into the network that the
    space builds, which keeps running statistics.

    Args:
        network: with choices that have their places (`find_choices`).
        choices: the architecture.
    """
    state = shared_state(network, choices)
    plain = strip(copy.deepcopy(network), choices)
    plain.load_state_dict(state)
    return plain.train(network.training)


def cut_weights(supernet: Supernet, choices: Sequence[int]) -> dict[str, Tensor]:
    """Copies of the shared weights of an architecture, by the keys of the network that its space builds.

    Where a supernet normalises by the statistics of its batches, the running statistics of the stand-alone network are
    not among them, nor a scale and a shift that the supernet does not learn.

    Args:
        supernet: of any space.
        choices: the architecture.
    """
    return {key: tensor.detach().clone() for key, tensor in supernet.standalone_state(choices).items()}
