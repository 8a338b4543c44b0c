"""Which cells of operations on edges compute the same function of their weights, whatever their strings say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Term = tuple[Any, ...]
"""An operation on a node's value: ``(name, instance, value)``; a value is a sorted tuple of terms, ``()`` is zero."""
_INPUT: Term = ("input",)


def computed(operations: Sequence[str]) -> str:
    """What the last node of a densely connected cell is, equal for cells that differ in nothing that can be measured.

    Edges that carry nothing, or whose value goes nowhere, are left out; a node that another one only passes on is that
    other one; the order of a sum does not matter. Two operations with weights of their own stay two.

    Args:
        operations: names by edge, in the order 1<-0, 2<-0, 2<-1, 3<-0, ...: ``none`` is no connection and
            ``skip_connect`` changes nothing.
    """
    values: list[tuple[Term, ...]] = [(_INPUT,)]
    edge = 0
    while edge < len(operations):
        terms: list[Term] = []
        for source in range(len(values)):
            name, value = operations[edge + source], values[source]
            if name == "skip_connect":
                terms += value
            elif name != "none" and value:
                terms.append((name, edge + source, value))
        edge += len(values)
        values.append(tuple(sorted(terms, key=_shape)))
    numbers: dict[int, int] = {}
    return _written(values[-1], numbers)


def _shape(term: Term) -> str:
    """A term without the numbers of its operations."""
    return term[0] if term == _INPUT else f"{term[0]}({'+'.join(map(_shape, term[2]))})"


def _written(value: tuple[Term, ...], numbers: dict[int, int]) -> str:
    """A value with its operations numbered in the order in which they are met, so that shared ones can be told."""
    parts = []
    for term in value:
        if term == _INPUT:
            parts.append("input")
        else:
            number = numbers.setdefault(term[1], len(numbers))
            parts.append(f"{term[0]}#{number}({_written(term[2], numbers)})")
    return "+".join(parts)
