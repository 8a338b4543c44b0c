"""Spaces whose decisions are declared by modules of a network (`lightning_modules.networks.choices`)."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from lightning_modules.networks.cells import Norm
from lightning_modules.networks.choices.choice_module import strip
from lightning_modules.networks.choices.finding import Declared, find_choices
from lightning_modules.networks.choices.supernet import ChoiceSupernet
from search.evaluation import Architecture
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head

Use = tuple[tuple[int, frozenset[int]], ...]
"""Decisions, each with the choices, under all of which a part of a network is there."""


class DeclaredSpace(SearchSpace):
    """The architectures of a network with choices: one decision each, in the order and by the paths of its modules.

    A decision about what another decision leaves out, such as the kernel of a layer that is not there, has one valid
    choice, the first; so no two architectures build the same network.
    """

    looked_at: str = "cpu"
    """Device on which the network is made to see its choices; ``meta`` where that works, for it costs nothing there."""

    @abstractmethod
    def network(self, head: Head) -> nn.Module:
        """The network with its choices, freshly initialised from torch's random state; the same choices for any head.

        If it has a method ``initialise``, that is called on the stand-alone network; layers with choices are otherwise
        initialised by torch's defaults, as plain layers of their size are.
        """

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:  # type: ignore[override]
        """One for each choice of the network."""
        return self._decisions_of(self._declared)

    @cached_property
    def _declared(self) -> list[Declared]:
        with torch.random.fork_rng(devices=[]), torch.device(self.looked_at):
            found = find_choices(self.network(OWN_HEAD))
        if not found:
            raise ValueError(f"{self.name}: the network has no choices; see lightning_modules.networks.choices")
        return found

    @staticmethod
    def _decisions_of(found: list[Declared]) -> tuple[Decision, ...]:
        return tuple(Decision(each.name, each.choice.labels) for each in found)

    @cached_property
    def _uses(self) -> tuple[tuple[Use, ...], ...]:
        """For each decision when it makes a difference; nothing for always."""
        return tuple(_uses_of(each) for each in self._declared)

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Of a decision about what is not there the first choice alone."""
        valid, uses = super().valid_choices(prefix), self._uses[prefix.shape[-1]]
        if uses:
            there = torch.zeros(prefix.shape[:-1], dtype=torch.bool, device=prefix.device)
            for use in uses:
                here = torch.ones_like(there)
                for place, choices in use:
                    here &= torch.isin(prefix[..., place], torch.tensor(sorted(choices), device=prefix.device))
                there |= here
            valid[..., 1:] = there.unsqueeze(-1)
        return valid

    def check(self, architecture: Sequence[int]) -> Architecture:
        """The architecture as a tuple of ints, of a valid one without a tensor.

        Raises:
            ValueError: a decision is missing, out of range, or ruled out by the ones before it.
        """
        arch = tuple(int(choice) for choice in architecture)
        if len(arch) == len(self.sizes) and all(map(range.__contains__, self._ranges, arch)):
            if not any(choice and not _is_there(uses, arch) for choice, uses in zip(arch, self._uses, strict=True)):
                return arch
        return super().check(arch)

    def largest(self) -> Architecture:
        """The architecture whose every decision takes the most of the network."""
        return self._filled([each.choice.largest_index for each in self._declared])

    def smallest(self) -> Architecture:
        """The architecture whose every decision takes the least of the network."""
        return self._filled([each.choice.smallest_index for each in self._declared])

    def _filled(self, wanted: list[int]) -> Architecture:
        """Wanted choices, but for decisions about what is not there."""
        chosen: list[int] = []
        for choice, uses in zip(wanted, self._uses, strict=True):
            chosen.append(choice if _is_there(uses, tuple(chosen)) else 0)
        return self.check(chosen)

    def count(self) -> int:
        """How many architectures there are."""
        last = [0] * len(self._uses)  # the last decision that depends on each
        for place, uses in enumerate(self._uses):
            for use in uses:
                for needed, _ in use:
                    last[needed] = place
        kept: tuple[int, ...] = ()  # decisions on which later ones depend
        counts: Counter[tuple[int, ...]] = Counter({(): 1})
        for place, (size, uses) in enumerate(zip(self.sizes, self._uses, strict=True)):
            after: Counter[tuple[int, ...]] = Counter()
            staying = tuple(each for each in (*kept, place) if last[each] > place)
            for chosen, count in counts.items():
                known: dict[int, int] = dict(zip(kept, chosen, strict=True))
                for choice in range(size if _is_there(uses, known) else 1):
                    now = known | {place: choice}
                    after[tuple(now[each] for each in staying)] += count
            kept, counts = staying, after
        return sum(counts.values())

    def build(self, architecture: Architecture, head: Head = OWN_HEAD) -> nn.Module:
        """The stand-alone network of an architecture, without choices, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: what the network is built for.
        """
        choices, network = self.check(architecture), self._numbered(head)
        plain = strip(network, choices)
        _initialise(plain)
        return plain

    def build_supernet(self, norm: Norm = nn.BatchNorm2d, head: Head = OWN_HEAD) -> ChoiceSupernet:
        """The network itself, with its choices; arguments as for `build`."""
        network = self._numbered(head)
        _initialise(network)
        return ChoiceSupernet(network, norm)

    def _numbered(self, head: Head) -> nn.Module:
        """The network for a head, its choices in their places."""
        network = self.network(head)
        found = self._decisions_of(find_choices(network))
        if found != self.decisions:
            raise ValueError(f"{self.name}: the network has other choices for {head} than for {OWN_HEAD}")
        return network


def _uses_of(declared: Declared) -> tuple[Use, ...]:
    """When a decision makes a difference; nothing for always, and where a later decision would have to say."""
    uses: list[Use] = []
    for conditions in declared.uses:
        use = tuple((choice.place, options) for choice, options in conditions)
        if not use or any(place >= declared.choice.place for place, _ in use):
            return ()
        uses.append(use)
    return tuple(uses)


def _initialise(network: nn.Module) -> None:
    if callable(initialise := getattr(network, "initialise", None)):
        initialise()


def _is_there(uses: tuple[Use, ...], chosen: dict[int, int] | tuple[int, ...]) -> bool:
    return not uses or any(all(chosen[place] in choices for place, choices in use) for use in uses)
