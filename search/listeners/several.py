"""Several listeners as one, for what tells one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.loop.search import Listener


class Several(Listener):
    """Tells of a training on, in order.

    Args:
        listeners: to tell.
    """

    def __init__(self, listeners: Sequence[Listener]):
        self.listeners = listeners

    def trained(self, name: str, epochs: int, values: Mapping[str, float], new: bool, trial: int = 0) -> None:
        """Some epochs are over."""
        for each in self.listeners:
            each.trained(name, epochs, values, new, trial)

    def training_ended(self, name: str, trial: int, history: Sequence[Mapping[str, Any]]) -> None:
        """A training has ended."""
        for each in self.listeners:
            each.training_ended(name, trial, history)

    def close(self) -> None:
        """It is over, for good or ill."""
        for each in self.listeners:
            each.close()
