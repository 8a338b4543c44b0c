"""The contract of a search space.

An architecture is a tuple of ints, one choice index per decision. Inside agents many architectures travel together as
an int64 tensor ``[trials, n, decisions]``; everywhere else they are tuples.

A new space is one file: name the decisions, say which choices are valid after which prefix (if not all are), and build
the network. Everything else has a default here.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from search.evaluation import Architecture
from search.randomness import TrialRandom, derive_seed, pick
from search.spaces.head import OWN_HEAD, Head, head_of

if TYPE_CHECKING:
    from lightning_modules.networks.cells import Norm
    from lightning_modules.networks.supernet import Supernet
    from lightning_modules.path_samplers.relaxation import Relaxation

_REMEMBERED = 10_000
"""Architectures that a space remembers to be valid."""


@dataclass(frozen=True)
class Decision:
    """One decision of a space and the names of its choices."""

    name: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Edge:
    """One labelled arrow of an architecture's drawing."""

    source: str
    target: str
    label: str


class SearchSpace(ABC):
    """A finite sequence of decisions, some choices of which may rule out later ones."""

    name: str
    part_of: str = ""
    """Name of the space that it is a part of, whose tables are tables of it as well; empty where it is whole."""
    decisions: tuple[Decision, ...]
    image_multiple: int = 1
    """Networks take images whose sides are multiples of this many pixels, and refuse others by name."""
    classifies: bool = True
    """Whether its networks give logits of classes; otherwise whatever `build` says."""
    reads_text: bool = False
    """Whether its networks read words, int64 ``[batch, time]``, in the place of images."""
    identity: str = ""
    """Label of the arrows of a drawing that hand on what they read, unchanged, to a sum; empty where there are none."""

    # ---- what a space must say -------------------------------------------------------------------------------------

    @abstractmethod
    def build(self, architecture: Architecture, head: Head = OWN_HEAD, *options: Any, **named: Any) -> nn.Module:
        """The network of an architecture, freshly initialised from torch's random state.

        Args:
            architecture: of this space.
            head: what it is built for.
            *options: further arguments are the space's own, such as ``channels``; each has a default and a name.
            **named: likewise.
        """

    # ---- what a space may say --------------------------------------------------------------------------------------

    def example_input(self, head: Head = OWN_HEAD) -> Tensor:
        """A batch that its networks take: by default four images, float32 ``[4, in_channels, 32, 32]``, of zeros."""
        return torch.zeros(4, head.in_channels, 32, 32)

    def build_supernet(self, norm: Norm, head: Head = OWN_HEAD, *options: Any, **named: Any) -> Supernet:
        """The network that holds every architecture's weights, freshly initialised from torch's random state.

        Args:
            norm: builds the normalisation layers, inside and outside the cells.
            head: as for `build`.
            *options: as for `build`.
            **named: as for `build`.

        Raises:
            ValueError: the space has none.
        """
        raise ValueError(f"the space '{self.name}' has no supernet")

    def relaxation(self) -> Relaxation:
        """What real numbers stand for its architectures where a method learns by gradient.

        By default a softmax a decision; `lightning_modules.path_samplers.trellis` has one in which a choice's weight
        depends on the decisions before it.
        """
        from lightning_modules.path_samplers.relaxation import IndependentRelaxation

        return IndependentRelaxation(self)

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Which choices of decision ``t`` may follow the first ``t`` choices.

        Args:
            prefix: int64 ``[..., t]``.

        Returns:
            Bool ``[..., choices of decision t]``, at least one of them true for every valid prefix.
        """
        shape = (*prefix.shape[:-1], self.sizes[prefix.shape[-1]])
        return torch.ones(shape, dtype=torch.bool, device=prefix.device)

    def format(self, architecture: Architecture) -> str:
        """The canonical string; `parse` reads it back."""
        self.check(architecture)
        return "|".join(
            f"{decision.name}={decision.choices[choice]}"
            for decision, choice in zip(self.decisions, architecture, strict=True)
        )

    def parse(self, text: str) -> Architecture:
        """The architecture of a canonical string.

        Raises:
            ValueError: the string is not one of this space.
        """
        parts = text.split("|")
        if len(parts) != len(self.decisions):
            raise ValueError(f"{self.name}: '{text}' has {len(parts)} decisions, {len(self.decisions)} are needed")
        choices = []
        for decision, part in zip(self.decisions, parts, strict=True):
            name, _, choice = part.partition("=")
            if name != decision.name or choice not in decision.choices:
                allowed = ", ".join(decision.choices)
                raise ValueError(f"{self.name}: '{part}' is not '{decision.name}=' followed by one of {allowed}")
            choices.append(decision.choices.index(choice))
        return self.check(tuple(choices))

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The architecture as a graph, for pictures; by default a chain of its decisions."""
        names = ["in", *(f"{k}" for k in range(1, len(self.decisions))), "out"]
        labels = [
            f"{decision.name}: {decision.choices[choice]}"
            for decision, choice in zip(self.decisions, architecture, strict=True)
        ]
        return [Edge(a, b, label) for (a, b), label in zip(itertools.pairwise(names), labels, strict=True)]

    def places(self) -> dict[str, tuple[float, float]]:
        """Where nodes of every `diagram` stand: column from the left, row from above; empty to lay out each anew.

        It may name nodes that an architecture does not have, such as places that a path does not touch.
        """
        return {}

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Arguments that make it cheap, as a recipe gives them."""
        return {}

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` and `build_supernet` for a network of a moment."""
        return {}

    # ---- what every space has --------------------------------------------------------------------------------------

    def build_from(self, architecture: Architecture, arguments: Mapping[str, Any]) -> nn.Module:
        """`build` by the names of a recipe: ``num_classes`` and ``in_channels`` are the head's, the others options."""
        head, options = head_of(arguments)
        return self.build(architecture, head, **options)

    def build_supernet_from(self, norm: Norm, arguments: Mapping[str, Any]) -> Supernet:
        """`build_supernet` by the names of a recipe, as `build_from` has them."""
        head, options = head_of(arguments)
        return self.build_supernet(norm, head, **options)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of choices of each decision."""
        return tuple(len(decision.choices) for decision in self.decisions)

    @cached_property
    def _free(self) -> bool:
        """Whether every choice may follow every other, so that no decision need wait for the one before it."""
        return type(self).valid_choices is SearchSpace.valid_choices

    @cached_property
    def _checked(self) -> set[Architecture]:
        """Architectures that `check` has found valid; one is built, drawn and written, and checked each time."""
        return set()

    @cached_property
    def _worths(self) -> Tensor:
        """What one more of each choice adds to the `code`, modulo 2^64."""
        worths = [math.prod(self.sizes[t + 1 :]) % 2**64 for t in range(len(self.sizes))]
        return torch.tensor([worth - 2**64 * (worth >= 2**63) for worth in worths], device="cpu")

    @cached_property
    def _steps(self) -> Tensor:
        """What leads to the `neighbours`: int64 ``[m, decisions]``, one entry of each row above 0."""
        rows = [(t, step) for t, size in enumerate(self.sizes) for step in range(1, size)]
        steps = torch.zeros(len(rows), len(self.sizes), dtype=torch.long, device="cpu")
        for row, (t, step) in enumerate(rows):
            steps[row, t] = step
        return steps

    @cached_property
    def _ranges(self) -> tuple[range, ...]:
        """The choices of each decision."""
        return tuple(map(range, self.sizes))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each decision's block begins in the one-hot code; one more entry holds the code's length."""
        return tuple(itertools.accumulate(self.sizes, initial=0))

    def is_valid(self, archs: Tensor) -> Tensor:
        """Whether each architecture belongs to the space: int64 ``[..., decisions]`` to bool ``[...]``."""
        most = torch.tensor(self.sizes, dtype=archs.dtype) - 1
        good = ((archs >= 0) & (archs <= most)).all(-1)
        if self._free:
            return good
        # What is out of range is already bad; it must only not crash here.
        archs = archs.clamp(min=0).minimum(most)
        for t in range(len(self.sizes)):
            good &= self.valid_choices(archs[..., :t]).gather(-1, archs[..., t : t + 1]).squeeze(-1)
        return good

    def check(self, architecture: Sequence[int]) -> Architecture:
        """The architecture as a tuple of ints.

        Raises:
            ValueError: a decision is missing, out of range, or ruled out by the ones before it.
        """
        arch = tuple(int(choice) for choice in architecture)
        if len(arch) != len(self.decisions):
            raise ValueError(f"{self.name}: {arch} has {len(arch)} decisions, {len(self.decisions)} are needed")
        if self._free and all(map(range.__contains__, self._ranges, arch)):
            return arch  # found without tensors
        if arch in self._checked:
            return arch
        with torch.device("cpu"):  # a network may be built under torch.device("meta"), which has no values to check
            for t, (decision, choice) in enumerate(zip(self.decisions, arch, strict=True)):
                allowed = [
                    k
                    for k, good in enumerate(self.valid_choices(torch.tensor(arch[:t], dtype=torch.long)).tolist())
                    if good
                ]
                if choice not in allowed:
                    raise ValueError(
                        f"{self.name}: decision '{decision.name}' of {arch} is {choice}, allowed: {allowed}"
                    )
        if len(self._checked) >= _REMEMBERED:
            self._checked.clear()
        self._checked.add(arch)
        return arch

    def sample(self, rng: TrialRandom, n: int) -> Tensor:
        """``n`` architectures a trial, each decision uniform over its valid choices.

        Returns:
            Int64 ``[trials, n, decisions]``.
        """
        draws = rng.uniform(len(self.sizes), n)
        if self._free:  # no decision need wait for the one before it
            return (draws * torch.tensor(self.sizes, dtype=torch.float64)[:, None]).long().transpose(1, 2).contiguous()
        archs = torch.zeros(rng.trials, n, len(self.sizes), dtype=torch.long)
        for t in range(len(self.sizes)):
            archs[..., t] = pick(self.valid_choices(archs[..., :t]), draws[:, t])
        return archs

    def draw(self, *seed: int | str) -> Architecture:
        """One architecture, each decision uniform over its valid choices: a pure function of the seed's parts."""
        return tuple(self.sample(TrialRandom(derive_seed(*seed)), 1)[0, 0].tolist())

    def draw_distinct(
        self,
        *seed: int | str,
        among: Tensor | None = None,
        besides: Collection[Architecture] = (),
        draws: int = 1000,
    ) -> Iterator[Architecture]:
        """Random architectures, no two of which build the same network (`canonical`).

        Args:
            *seed: of the draws, which are a pure function of its parts.
            among: int64 ``[n, decisions]``, all that may be drawn: uniform over these, one for each network. By default
                each decision is uniform over its valid choices, so a network that many architectures build comes early.
            besides: architectures whose networks are not drawn.
            draws: in a row that give nothing new, after which it ends.

        Yields:
            One after another.
        """
        plain = type(self).canonical is SearchSpace.canonical
        taken = {each if plain else self.canonical_of(each) for each in besides}
        if among is None:
            drawn: Iterator[Architecture] = (self.draw(*seed, draw) for draw in itertools.count())
        else:
            order = TrialRandom(derive_seed(*seed)).permutation(len(among))[0]
            drawn = (tuple(among[place].tolist()) for place in order.tolist())
        in_vain = 0
        for architecture in drawn:
            key = architecture if plain else self.canonical_of(architecture)
            if key not in taken:
                in_vain = 0
                taken.add(key)
                yield architecture
            elif (in_vain := in_vain + 1) == draws:
                return

    def canonical_of(self, architecture: Architecture) -> Architecture:
        """`canonical` of one architecture."""
        return tuple(self.canonical(torch.tensor(architecture)).tolist())

    def mutate(self, archs: Tensor, rng: TrialRandom) -> Tensor:
        """Change one decision of each architecture to another valid choice.

        The decision is uniform among those that have a second valid choice. A later decision that the change rules
        out is drawn anew; every other one stays.

        Args:
            archs: int64 ``[trials, n, decisions]``.
            rng: one stream a trial.

        Returns:
            The same shape; valid, and different wherever the space has a second architecture within reach.
        """
        if self._free:
            return self._mutate_freely(archs, rng)
        options = torch.stack([self._alternatives(archs, t).any(-1) for t in range(len(self.sizes))], dim=-1)
        # Where nothing can change (a space of one architecture), any decision will do: it is drawn again as it is.
        position = rng.categorical(options | ~options.any(-1, keepdim=True)).unsqueeze(-1)
        draws = rng.uniform(len(self.sizes), *archs.shape[1:-1])
        mutated = torch.empty(archs.shape, dtype=torch.long)
        for t in range(len(self.sizes)):
            allowed = self.valid_choices(mutated[..., :t])
            old = archs[..., t : t + 1]
            other = allowed.scatter(-1, old, False)
            forced = (position == t) & other.any(-1, keepdim=True)
            keep = allowed.gather(-1, old) & ~forced
            drawn = pick(torch.where(forced, other, allowed), draws[:, t]).unsqueeze(-1)
            mutated[..., t : t + 1] = torch.where(keep, old, drawn)
        return mutated

    def _mutate_freely(self, archs: Tensor, rng: TrialRandom) -> Tensor:
        """`mutate` where no choice rules out another: the same draws, of which only one decision's count."""
        sizes = torch.tensor(self.sizes)
        options = (sizes > 1) | (sizes == 1).all()
        position = rng.categorical(options.expand(archs.shape)).unsqueeze(-1)
        draw = rng.uniform(len(self.sizes), *archs.shape[1:-1]).movedim(1, -1).gather(-1, position)
        old, others = archs.gather(-1, position), sizes[position] - 1
        drawn = (draw * others).long()
        return archs.contiguous().scatter(-1, position, torch.where(others > 0, drawn + (drawn >= old), old))

    def neighbours(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """Every architecture that differs in exactly one decision.

        Args:
            archs: int64 ``[trials, decisions]``.

        Returns:
            Int64 ``[trials, m, decisions]`` with ``m`` the sum of (choices - 1), and bool ``[trials, m]``: which of
            them belong to the space.
        """
        stacked = (archs.unsqueeze(1) + self._steps) % torch.tensor(self.sizes)
        return stacked, self.is_valid(stacked)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Hamming distance: the number of decisions that differ, over the last dimension."""
        return (a != b).sum(-1)

    def smallest(self) -> Architecture:
        """The architecture of the smallest network: by default of the first choices.

        A space whose choices are not in the order of their size says something else, or it has no such architecture.
        """
        return self._of_ends(lambda allowed: allowed[0])

    def largest(self) -> Architecture:
        """The architecture of the largest network: by default of the last choices that may follow; see `smallest`."""
        return self._of_ends(lambda allowed: allowed[-1])

    def _of_ends(self, pick: Callable[[list[int]], int]) -> Architecture:
        """The architecture of whatever is picked among the choices that may follow."""
        chosen: list[int] = []
        for _ in self.sizes:
            mask = self.valid_choices(torch.tensor(chosen, dtype=torch.long)).tolist()
            chosen.append(pick([choice for choice, good in enumerate(mask) if good]))
        return tuple(chosen)

    def canonical(self, archs: Tensor) -> Tensor:
        """One architecture for all that build the same network: int64 ``[..., decisions]`` to the same shape.

        A space in which different architectures always differ leaves them as they are.
        """
        return archs

    def representative(self, archs: Tensor) -> Tensor:
        """One architecture for all whose networks compute the same function of their weights, to the same shape.

        Unlike `canonical`, it may merge architectures whose networks differ in weights that nothing comes of, and that
        a benchmark has trained one by one. Where nobody knows better, it is `canonical`.
        """
        return self.canonical(archs)

    def one_hot(self, archs: Tensor) -> Tensor:
        """One-hot blocks side by side: int64 ``[..., t]`` to float32 ``[..., sum of all sizes]``.

        Decisions after the ``t``-th are blocks of zeros (CATCH, sec. 3.2), so a prefix can be encoded too.
        """
        code = torch.zeros(*archs.shape[:-1], self.offsets[-1])
        offsets = torch.tensor(self.offsets[: archs.shape[-1]])
        return code.scatter_(-1, archs + offsets, 1.0)

    def code(self, archs: Tensor) -> Tensor:
        """One number per architecture, mixed radix, first decision first: ``[..., decisions]`` to ``[...]``.

        In a space of more than 2^63 combinations of choices it is taken modulo 2^64: two architectures of such a space
        share a number about as rarely as two hashes of that length are equal.
        """
        return (archs * self._worths).sum(-1)

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture of the space, in lexicographic order of its choices."""
        if self._free:
            yield from itertools.product(*self._ranges)
            return
        stack: list[Architecture] = [()]
        while stack:
            prefix = stack.pop()
            if len(prefix) == len(self.sizes):
                yield prefix
                continue
            valid = self.valid_choices(torch.tensor(prefix, dtype=torch.long)).tolist()
            stack.extend((*prefix, choice) for choice in reversed(range(len(valid))) if valid[choice])

    def _alternatives(self, archs: Tensor, t: int) -> Tensor:
        """Valid choices of decision ``t`` other than the present one: bool ``[..., choices]``."""
        return self.valid_choices(archs[..., :t]).scatter(-1, archs[..., t : t + 1], False)
