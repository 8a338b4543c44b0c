"""The part of a space that a table lists."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from search.evaluation import Architecture
from search.randomness import TrialRandom
from search.spaces.base import Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head
from search.spaces.nasbench_macro import NASBenchMacro
from search.tables.table import find_table, read_columns

if TYPE_CHECKING:
    from lightning_modules.networks.cells import Norm
    from lightning_modules.networks.supernet import Supernet

_AT_ONCE = 128
"""Networks whose distances to all others are held at once: some tens of megabytes where 30,000 are listed."""


class ListedNetworks(SearchSpace):
    """The networks of a space that stand in a table, such as a sample of a benchmark: no other is ever asked.

    Decisions, strings, drawings and networks are the space's own. Of architectures that build the same network only the
    `canonical` one is listed. A random architecture is uniform among those that are listed, and so not decision by
    decision, which is how a CATCHer weighs the random ones that it opens with.

    Where few networks are listed, hardly any is one decision away from another. So an architecture's neighbours are the
    nearest, as many as there are one decision away in a space without rules, and its mutant is one of them. A fixed
    random order says which of several at one distance count as nearer. In a table of all architectures of such a space
    they are those one decision away.

    Args:
        space: whose networks.
        table: lists them, among other things (format: `search.tables.table`); found as `TableTask` finds its own.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: the table is of another space, or lists nothing.
    """

    def __init__(self, space: SearchSpace, table: str):
        path = find_table(table)
        content = read_columns(path, [])
        rows = torch.from_numpy(content.arch).long()
        if content.space not in (None, space.name, space.part_of):
            raise ValueError(f"{path}: the table is of the space '{content.space}', not of '{space.name}'")
        if not len(rows) or rows.shape[-1] != len(space.sizes) or not space.is_valid(rows).all():
            raise ValueError(f"{path}: its architectures do not belong to the space '{space.name}' {space.sizes}")
        self.name, self.part_of, self.decisions = f"listed {space.name}", space.name, space.decisions
        self.image_multiple, self.classifies = space.image_multiple, space.classifies
        self.reads_text, self.identity = space.reads_text, space.identity
        self._space = space
        # In the order of `enumerate`.
        self._archs = torch.from_numpy(np.unique(space.canonical(rows).numpy(), axis=0))
        self._codes, self._by_code = self.code(self._archs).sort()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A table that ships and lists all of its space."""
        return {"space": "NASBenchMacro", "table": "nasbench_macro.npz"}

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """What builds a network of `toy` in a moment."""
        return NASBenchMacro.toy_build()

    # ---- which are listed ------------------------------------------------------------------------------------------

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Which choices of the next decision a listed network has, of those that begin like that."""
        node = torch.ones(prefix.shape[:-1], dtype=torch.long)
        for t, following in enumerate(self._tree[: prefix.shape[-1]]):
            node = following[node, prefix[..., t]]
        return self._tree[prefix.shape[-1]][node] > 0

    def is_valid(self, archs: Tensor) -> Tensor:
        """Whether each architecture is listed: int64 ``[..., decisions]`` to bool ``[...]``."""
        return (self._archs[self._rows(archs)] == archs).all(-1)

    def enumerate(self) -> Iterator[Architecture]:
        """Every listed architecture, in lexicographic order of its choices."""
        return map(tuple, self._archs.tolist())

    def sample(self, rng: TrialRandom, n: int) -> Tensor:
        """``n`` architectures a trial, uniform among those that are listed: int64 ``[trials, n, decisions]``."""
        return self._archs[rng.integers(len(self._archs), n)]

    def mutate(self, archs: Tensor, rng: TrialRandom) -> Tensor:
        """One of the neighbours of each architecture, all alike: int64 ``[trials, n, decisions]`` to the same shape."""
        near, there = self._nearest(archs)
        # Where nothing else is listed, whatever is drawn is the architecture itself.
        drawn = rng.categorical(there | ~there.any(-1, keepdim=True))
        return self._archs[near.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)]

    def neighbours(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest listed architectures, nearest first; shapes as for any space."""
        near, there = self._nearest(archs)
        return self._archs[near], there

    # ---- the space's own -------------------------------------------------------------------------------------------

    def format(self, architecture: Architecture) -> str:
        """The space's string; `parse` reads it back."""
        return self._space.format(self.check(architecture))

    def parse(self, text: str) -> Architecture:
        """The listed architecture of the network that a string of the space means."""
        try:
            return self.check(self._space.canonical_of(self._space.parse(text)))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The space's drawing."""
        return self._space.diagram(architecture)

    def places(self) -> dict[str, tuple[float, float]]:
        """The space's places."""
        return self._space.places()

    def example_input(self, head: Head = OWN_HEAD) -> Tensor:
        """What the space's networks take."""
        return self._space.example_input(head)

    def build(self, architecture: Architecture, head: Head = OWN_HEAD, *options: Any, **named: Any) -> nn.Module:
        """The space's network of a listed architecture."""
        return self._space.build(self.check(architecture), head, *options, **named)

    def build_supernet(self, norm: Norm, head: Head = OWN_HEAD, *options: Any, **named: Any) -> Supernet:
        """The space's supernet; random paths through it are the listed networks, each as often as any other."""
        return self._space.build_supernet(norm, head, *options, **named)

    # ---- how they are found ----------------------------------------------------------------------------------------

    @cached_property
    def _tree(self) -> list[Tensor]:
        """What listed architectures begin with, as a tree whose root is node 1.

        Returns:
            For each decision int64 ``[nodes, choices]``: the node that each choice leads to, 0 where none is listed.
        """
        tree, node = [], torch.ones(len(self._archs), dtype=torch.long)
        for t, size in enumerate(self.sizes):
            branches, after = (node * size + self._archs[:, t]).unique(return_inverse=True)
            following = torch.zeros((int(node.max()) + 1) * size, dtype=torch.long)
            following[branches] = torch.arange(1, len(branches) + 1)
            tree.append(following.reshape(-1, size))
            node = after + 1
        return tree

    def _rows(self, archs: Tensor) -> Tensor:
        """Where each architecture stands in the list; anywhere if it does not."""
        place = torch.searchsorted(self._codes, self.code(archs)).clamp(max=len(self._codes) - 1)
        return self._by_code[place]

    @cached_property
    def _known_nearest(self) -> Tensor:
        """What `_nearest` has found: int64 ``[listed, neighbours]``, -1 where nobody has asked yet."""
        return torch.full((len(self._archs), sum(self.sizes) - len(self.sizes)), -1)

    def _nearest(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """The neighbours of each architecture, nearest first.

        Args:
            archs: int64 ``[..., decisions]``, listed.

        Returns:
            Where they stand in the list, int64 ``[..., neighbours]``; and bool of that shape, false of an architecture
            itself, which fills the row where fewer others are listed.
        """
        rows, known = self._rows(archs), self._known_nearest
        asked = rows.unique()
        width = min(known.shape[1], len(known) - 1)
        for some in asked[known[asked, 0] < 0].split(_AT_ONCE):
            alike = self._one_hot_of_all[some] @ self._one_hot_of_all.T  # small whole numbers: exact
            distance = (len(self.sizes) - alike).double() * len(known) + self._order
            distance[torch.arange(len(some)), some] = torch.inf
            known[some] = some[:, None]
            known[some, :width] = distance.topk(width, largest=False).indices
        return known[rows], known[rows] != rows.unsqueeze(-1)

    @cached_property
    def _one_hot_of_all(self) -> Tensor:
        return self.one_hot(self._archs)

    @cached_property
    def _order(self) -> Tensor:
        """Which of two listed networks at one distance is called nearer: int64 ``[listed]``."""
        return TrialRandom(0).permutation(len(self._archs))[0]
