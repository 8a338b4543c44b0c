"""Spaces whose architectures are sequences of layers, of different lengths."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Layered(Protocol):
    """A space that says which of its decisions make a layer, and which one how many layers there are.

    Agents that grow architectures layer by layer ask for it. Of any other space each decision is a layer of its own,
    and every architecture has all of them.
    """

    depth_decision: int
    """The decision whose choice ``k`` means that the first ``k + 1`` layers are there. Decisions of the others have
    one valid choice, the first."""
    layer_decisions: tuple[tuple[int, ...], ...]
    """The decisions of each layer, as many for each."""
