"""What an architecture's drawing says of the function that it computes, and which drawings say the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from search.evaluation import Architecture
from search.spaces.base import Edge, SearchSpace

_DRAWINGS = 64
"""Drawings from which a space's inputs and outputs are told. A node that is an input in none of them is none: by chance
a node of NAS-Bench-201 would be taken for an input once in 5^64 times."""

Arrow = tuple[str, str]
"""(what it does, the node that it reads)."""


@dataclass(frozen=True)
class Ends:
    """Where the graphs of a space begin and end.

    Attributes:
        inputs: nodes that no arrow ever leads to.
        outputs: nodes that no arrow ever leaves.
    """

    inputs: frozenset[str]
    outputs: frozenset[str]

    @classmethod
    def of(cls, space: SearchSpace) -> Ends:
        """Those of a space, by drawings of some of its architectures."""
        drawings = [space.diagram(space.draw("ends", k)) for k in range(_DRAWINGS)]
        sources = {arrow.source for drawing in drawings for arrow in drawing}
        targets = {arrow.target for drawing in drawings for arrow in drawing}
        return cls(frozenset(sources - targets), frozenset(targets - sources))


class CellGraph:
    """The live part of a drawing: what lies on a way from an input to an output.

    A node is the unordered collection of the arrows that lead to it. An arrow that changes nothing, such as a skip
    connection of NAS-Bench-201, is left out: the node has the arrows of the node that it reads.

    Args:
        drawing: of an architecture.
        ends: of its space.
        identity: label of arrows that change nothing; empty where there are none.
    """

    def __init__(self, drawing: Sequence[Edge], ends: Ends, identity: str = ""):
        self._ends, self._identity = ends, identity
        self._drawn: dict[str, list[Arrow]] = {}
        for arrow in drawing:
            self._drawn.setdefault(arrow.target, []).append((arrow.label, arrow.source))
        self._arrows: dict[str, tuple[Arrow, ...]] = {}
        self._digests: dict[str, str] = {}
        self.outputs = [node for node in sorted(self._drawn) if node in ends.outputs and self.arrows(node)]

    @classmethod
    def of(cls, space: SearchSpace, architecture: Architecture, ends: Ends) -> CellGraph:
        """The graph of an architecture."""
        return cls(space.diagram(architecture), ends, space.identity)

    def arrows(self, node: str) -> tuple[Arrow, ...]:
        """The arrows into a node that come from an input; none for an input."""
        if node not in self._arrows:
            live: list[Arrow] = []
            for label, source in self._drawn.get(node, ()):
                inside = () if source in self._ends.inputs else self.arrows(source)
                if len(inside) == 1 and self._hands_on(*inside[0]):
                    source, inside = inside[0][1], ()  # the node is an input handed on
                if source not in self._ends.inputs and not inside:
                    continue
                live.extend(inside if label == self._identity and inside else [(label, source)])
            self._arrows[node] = tuple(sorted(live))
        return self._arrows[node]

    def _hands_on(self, label: str, source: str) -> bool:
        """Whether an arrow hands an input on as it is."""
        return label == self._identity and source in self._ends.inputs

    @cached_property
    def uses(self) -> Counter[str]:
        """On how many ways each live node reaches an output, inputs left out."""
        uses = Counter(self.outputs)
        for node in reversed(self.order):
            for _, source in self.arrows(node):
                if source not in self._ends.inputs:
                    uses[source] += uses[node]
        return uses

    @cached_property
    def order(self) -> list[str]:
        """The live nodes without inputs, each behind those that it reads."""
        found: dict[str, None] = {}

        def visit(node: str) -> None:
            if node in self._ends.inputs or node in found:
                return
            for _, source in self.arrows(node):
                visit(source)
            found[node] = None

        for node in self.outputs:
            visit(node)
        return list(found)

    def digest(self, node: str) -> str:
        """The same for nodes that compute the same of the inputs, on every machine: 16 hexadecimal digits."""
        if node not in self._digests:
            parts = sorted(
                f"={source}" if self._hands_on(label, source) else f"{label}({self.digest(source)})"
                for label, source in self.arrows(node)
            )
            if node in self._ends.inputs:  # what a node has that only hands an input on
                parts = [f"={node}"]
            self._digests[node] = hashlib.blake2b("|".join(parts).encode(), digest_size=8).hexdigest()
        return self._digests[node]

    @cached_property
    def name(self) -> str:
        """The same for all drawings that say the same."""
        return "|".join(f"{node}={self.digest(node)}" for node in self.outputs)

    def paths(self) -> Counter[tuple[str, ...]]:
        """How many ways from an input to an output pass which labels, in their order (BANANAS, sec. 4)."""
        ways: dict[str, Counter[tuple[str, ...]]] = {}
        for node in self.order:
            ways[node] = Counter()
            for label, source in self.arrows(node):
                step = () if label == self._identity else (label,)
                before = {(): 1} if source in self._ends.inputs else ways[source]
                for labels, count in before.items():
                    ways[node][(*labels, *step)] += count
        return sum((ways[node] for node in self.outputs), Counter())

    def subtrees(self, depth: int) -> Counter[str]:
        """How often each arrow occurs, told apart by what feeds it (Weisfeiler-Lehman; NASBOWL, sec. 3).

        An arrow counts once for every way from it to an output. It is named by its label, by its label and those of
        the arrows that feed it, and so on ``depth`` times.
        """
        # names[d][node]: the node as its arrows show it to depth d.
        names: list[dict[str, str]] = [{}]
        found: Counter[str] = Counter()
        for level in range(depth + 1):
            names.append({node: f"(={node})" for node in self._ends.inputs})
            for node in self.order:
                arrows = [
                    f"={source}" if self._hands_on(label, source) else f"{label}<{names[level].get(source, '')}"
                    for label, source in self.arrows(node)
                ]
                for arrow in arrows:
                    found[f"{level}:{arrow}"] += self.uses[node]
                names[-1][node] = "(" + ",".join(sorted(arrows)) + ")"
        for node in self.outputs:
            for level in range(1, depth + 1):
                found[f"{level}={names[level][node]}"] += 1
        return found
