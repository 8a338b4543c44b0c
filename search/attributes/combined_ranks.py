"""Several attributes as one number of an architecture, for agents and reports that take attributes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Optional

import numpy as np

from search.attributes.base import Attribute
from search.attributes.combination import Combination
from search.attributes.network import NetworkAttribute
from search.attributes.together import measure_together
from search.evaluation import Architecture
from search.randomness import derive_seed
from search.spaces.base import SearchSpace


class CombinedRanks(Attribute):
    """How an architecture ranks among others, by several attributes at once.

    Ranks need something to rank among: a pool of random architectures, drawn once by the seed, whose attributes are
    measured when the first value is asked for. So a value depends on nothing but the architecture.

    Args:
        space: of the architectures.
        members: the attributes by name.
        combination: how their ranks are combined; None for the sum of their logarithms (AZ-NAS).
        pool: architectures to rank among.
        seed: of the pool.
        build: arguments of `SearchSpace.build_from` of members that name none of their own.

    Raises:
        ValueError: the pool has fewer than 2, or the combination names what is no member.
    """

    name = "combined ranks"

    def __init__(
        self,
        space: SearchSpace,
        members: dict[str, Callable[[SearchSpace], Attribute]],
        combination: Optional[Combination] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        pool: int = 100,
        seed: int = 0,
        build: Optional[dict[str, Any]] = None,  # noqa: UP045
    ):
        super().__init__(space)
        if pool < 2:
            raise ValueError(f"pool is {pool}, at least 2 are needed to rank anything")
        self.members: dict[str, Attribute] = {name: make(space) for name, make in members.items()}
        for member in self.members.values():
            if isinstance(member, NetworkAttribute):
                member.adopt(build)
        self.combination = combination or Combination(members=list(members))
        if unknown := [name for name in self.combination.parts if name not in self.members]:
            raise ValueError(f"combination has '{unknown[0]}', members are {', '.join(self.members)}")
        self.pool, self.seed = pool, seed

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Two that cost nothing, among four architectures."""
        return {"members": {"flops": "Flops", "parameters": "Parameters"}, "pool": 4}

    def measure(self, architectures: Sequence[Architecture]) -> Iterator[float]:
        """One after another, each among the pool alone; NaN of one that no member has a value of."""
        for architecture in architectures:
            own = self._columns([architecture])
            yield (
                math.nan
                if all(np.isnan(each).all() for each in own.values())
                else float(self.combination.of(own, self._pool)[0])
            )

    @cached_property
    def _pool(self) -> dict[str, np.ndarray]:
        drawn = [self.space.draw(derive_seed(self.seed, "pool"), draw) for draw in range(self.pool)]
        return self._columns(drawn)

    def _columns(self, architectures: Sequence[Architecture]) -> dict[str, np.ndarray]:
        """By member the values ``[n]``, higher is presumably better."""
        rows = [measure_together(self.members, each) for each in architectures]
        return oriented_columns(self.members, rows)


def oriented_columns(attributes: Mapping[str, Attribute], rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Values by attribute, turned so that higher is presumably better; NaN where there is none.

    Args:
        attributes: by name.
        rows: for each architecture the values by name.
    """
    return {
        name: np.array([row.get(name, math.nan) for row in rows]) * (1 if attribute.direction == "max" else -1)
        for name, attribute in attributes.items()
    }
