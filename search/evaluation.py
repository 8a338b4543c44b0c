"""What passes between agent, loop and task."""

from __future__ import annotations

from dataclasses import dataclass

from search.spaces.base import Architecture


@dataclass(frozen=True)
class Proposal:
    """What an agent asks for."""

    architecture: Architecture
    seed: int = 0
