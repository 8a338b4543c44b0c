"""A function of topology learned from experts, by apprenticeship learning (IRLAS; Abbeel and Ng, ICML 2004)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from search.evaluation import Architecture
from search.randomness import TrialRandom, derive_seed
from search.spaces.base import SearchSpace

ROUNDS = 10
"""Of the projection [assumed]."""
TOLERANCE = 0.1
"""Distance from the experts' features at which it ends, as a share of that at its beginning [assumed]."""
RANDOM = 500
"""Architectures whose mean the projection starts from, and that scale the function [assumed]."""
_KEPT, _CHILDREN, _STEPS = 25, 8, 12
"""The climb: the best so many, each with so many mutants, so often."""


class TopologyFeatures:
    """How much of each kind of connection an architecture has, earlier ones counting more.

    The states of an architecture are the nodes of its drawing (`SearchSpace.diagram`). What is seen of a node is, for
    each arrow that ends there, its label, how many nodes it passes over, and label and both ends together; the features
    are ``mu = sum_t gamma^t phi(s_t)`` (Abbeel and Ng, sec. 2). IRLAS codes the layers of BlockQNN's blocks by index,
    type, kernel and predecessors; this is the same for any space that draws its architectures [assumed]. What does not
    depend on the place is what other architectures may share with an expert; what does lets an expert be told from all.

    Args:
        space: draws the architectures.
        gamma: discount of each node [assumed].
    """

    def __init__(self, space: SearchSpace, gamma: float = 0.9):
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma is {gamma}, it must lie in (0, 1]")
        self.space, self.gamma = space, gamma
        self.names: dict[str, int] = {}
        self._known: dict[Architecture, dict[str, float]] = {}

    def counts(self, architecture: Architecture) -> dict[str, float]:
        """The features of one architecture by name; those that are not there are 0."""
        if architecture not in self._known:
            edges = self.space.diagram(architecture)
            places = _places([name for edge in edges for name in (edge.source, edge.target)])
            found: dict[str, float] = {}
            for edge in edges:
                (part, source), (_, target) = places[edge.source], places[edge.target]
                label, where = f"{part}{edge.label}", f"from {edge.source} to {edge.target}"
                for name in (label, f"{part}passes over {target - source - 1}", f"{label} {where}"):
                    found[name] = found.get(name, 0.0) + self.gamma**target
            self._known[architecture] = found
        return self._known[architecture]

    def matrix(self, architectures: Sequence[Architecture]) -> Tensor:
        """Features of several architectures, float64 ``[n, features]``; names that are new are added to `names`."""
        rows = [self.counts(architecture) for architecture in architectures]
        for row in rows:
            for name in row:
                self.names.setdefault(name, len(self.names))
        matrix = torch.zeros(len(rows), len(self.names), dtype=torch.float64)
        for k, row in enumerate(rows):
            for name, value in row.items():
                matrix[k, self.names[name]] = value
        return matrix


def _places(nodes: Sequence[str]) -> dict[str, tuple[str, int]]:
    """What a node's name begins with, which tells cells apart, and its number: the one at its end, or as they come."""
    names = list(dict.fromkeys(nodes))
    ends = [re.fullmatch(r"(.*?)([0-9]+)", name) for name in names]
    if not all(ends):
        return {name: ("", place) for place, name in enumerate(names)}
    return {name: (end[1], int(end[2])) for name, end in zip(names, ends, strict=True) if end is not None}


class MirrorStimuli:
    """IRLAS' function of topology, ``F = w . mu``, larger the more an architecture is like experts.

    The projection algorithm (Abbeel and Ng, sec. 3.1): from the mean features of random architectures on, ``w`` points
    from where agents have come to the experts; an agent climbs ``w . mu``, and the point moves towards what it found as
    far as that is nearer to the experts. The agent is a climb from random architectures, which stands in for the
    search of every round. In the end ``w . mu`` is scaled to [0, 1] over the random architectures and the experts.

    Args:
        space: draws the architectures.
        experts: architectures whose mean features are to be matched.
        gamma: as in `TopologyFeatures`.
        seed: of the random architectures.

    Raises:
        ValueError: there is no expert, or experts are in nothing unlike random architectures.
    """

    def __init__(self, space: SearchSpace, experts: Sequence[Architecture], gamma: float = 0.9, seed: int = 0):
        if not experts:
            raise ValueError("experts: at least one architecture is needed")
        self.features = TopologyFeatures(space, gamma)
        self._rng = TrialRandom(derive_seed(seed, "topology"))
        random = [tuple(each) for each in space.sample(self._rng, RANDOM)[0].tolist()]
        wanted = [space.check(expert) for expert in experts]
        self.random = random
        weights = self._project(random, wanted)
        self.weights = weights
        scores = self._raw([*random, *wanted])
        self._least, self._most = float(scores.min()), float(scores.max())

    def _project(self, random: list[Architecture], experts: list[Architecture]) -> dict[str, float]:
        features = self.features
        reached = features.matrix(random).mean(0)
        expert = features.matrix(experts).mean(0)
        reached = torch.cat([reached, torch.zeros(len(expert) - len(reached), dtype=torch.float64)])
        direction = expert - reached
        first = float(direction.norm())
        if first < 1e-9:
            raise ValueError("experts: they are in nothing unlike random architectures")
        weights = direction
        for _ in range(ROUNDS):
            if float(direction.norm()) < TOLERANCE * first:
                break
            weights = direction
            found = features.matrix([self._climb(weights, random)])[0]
            grown = len(found) - len(reached)
            reached, expert, weights = (
                torch.cat([each, torch.zeros(grown, dtype=torch.float64)]) for each in (reached, expert, weights)
            )
            step = found - reached
            length = float(step @ step)
            if length == 0:
                break
            share = min(1.0, max(0.0, float(step @ (expert - reached)) / length))
            reached = reached + share * step
            direction = expert - reached
        weights = weights / weights.norm()
        return {name: float(weights[place]) for name, place in features.names.items() if place < len(weights)}

    def _climb(self, weights: Tensor, random: list[Architecture]) -> Architecture:
        """The architecture with the largest ``w . mu`` that a climb from random ones finds."""
        named = {name: float(weights[place]) for name, place in self.features.names.items() if place < len(weights)}

        def worth(architecture: Architecture) -> float:
            counts = self.features.counts(architecture)
            return sum(named.get(name, 0.0) * value for name, value in counts.items())

        # Ties go to the one that was met first: a set would order them by chance.
        best = sorted(dict.fromkeys(random), key=worth, reverse=True)[:_KEPT]
        for _ in range(_STEPS):
            parents = torch.tensor(best).repeat(_CHILDREN, 1).unsqueeze(0)
            children = [tuple(each) for each in self.features.space.mutate(parents, self._rng)[0].tolist()]
            after = sorted(dict.fromkeys([*best, *children]), key=worth, reverse=True)[:_KEPT]
            if after == best:
                break
            best = after
        return best[0]

    def _raw(self, architectures: Sequence[Architecture]) -> Tensor:
        """``w . mu`` of each: float64 ``[n]``."""
        rows = [self.features.counts(architecture) for architecture in architectures]
        return torch.tensor(
            [sum(self.weights.get(name, 0.0) * value for name, value in sorted(row.items())) for row in rows],
            dtype=torch.float64,
        )

    def __call__(self, architectures: Sequence[Architecture]) -> Tensor:
        """F of each architecture: float64 ``[n]``, in [0, 1] among random ones and the experts."""
        return (self._raw(architectures) - self._least) / (self._most - self._least)
