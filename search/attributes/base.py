"""The contract of an attribute: what is known of an architecture before anybody pays for its evaluation.

A new attribute is one file: name it, and say what it is of some architectures. What it needs besides the space is an
argument of its constructor, by these names wherever they mean the same: ``build`` (arguments of
`search.spaces.base.SearchSpace.build_from`), ``seed`` (of the weights), ``device``, and ``data`` (a Lightning data
module); `search.attributes.network` has these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from search.evaluation import Architecture
from search.spaces.base import SearchSpace


class Attribute(ABC):
    """A number that every architecture of a space has, the same each time it is asked for.

    Args:
        space: of the architectures.

    Attributes:
        name: what it is, in words.
        unit: of its values; empty where they have none.
        direction: ``max`` or ``min``: which values presumably go with better networks.
    """

    name: str
    unit: str = ""
    direction: str = "max"

    def __init__(self, space: SearchSpace):
        self.space = space
        self._known: dict[Architecture, float] = {}

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Arguments, besides the space, with which a value takes well under a second, as a recipe gives them."""
        return {}

    @classmethod
    def toy_space(cls) -> SearchSpace | None:
        """A small space that it takes, to look at it on; None where any will do."""
        return None

    @abstractmethod
    def measure(self, architectures: Sequence[Architecture]) -> Iterable[float]:
        """The value of each of these, NaN where it has none: a pure function of the architecture.

        Args:
            architectures: different ones, each the one that `SearchSpace.canonical` has for all of its network.
        """

    def values(self, archs: Tensor) -> Tensor:
        """The values of architectures; each network is measured once.

        Args:
            archs: int64 ``[..., decisions]``.

        Returns:
            Float64 ``[...]``, NaN where there is no value.
        """
        flat = self.canonical(archs).reshape(-1, archs.shape[-1]).tolist()
        wanted = [tuple(architecture) for architecture in flat]
        if unknown := [each for each in dict.fromkeys(wanted) if each not in self._known]:
            self._known |= zip(unknown, map(float, self.measure(unknown)), strict=True)
        found = torch.tensor([self._known[each] for each in wanted], dtype=torch.float64)
        return found.reshape(archs.shape[:-1])

    def canonical(self, archs: Tensor) -> Tensor:
        """The architectures that stand for these and for all that have the same value: of int64 ``[..., decisions]``.

        By default those that build the same network.
        """
        return self.space.canonical(archs)

    def knows(self, architecture: Architecture) -> bool:
        """Whether its value was measured before."""
        return self.measured(architecture) in self._known

    def measured(self, architecture: Architecture) -> Architecture:
        """The architecture that is measured for this one."""
        return tuple(self.canonical(torch.tensor(architecture)).tolist())

    def __deepcopy__(self, memo: dict[int, Any]) -> Attribute:
        """Itself: it is the same each time it is asked, and a table in it is large."""
        return self

    def remember(self, architecture: Architecture, value: float) -> None:
        """Take a value that was measured before, so that it is not measured again."""
        self._known[self.measured(architecture)] = value
