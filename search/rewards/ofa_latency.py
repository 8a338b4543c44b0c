"""Latency on a phone as a factor of a reward, for Once-for-all's space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from torch import Tensor

from search.rewards.latency import LatencyTerm
from search.spaces.ofa_mobilenetv3 import OFAMobileNetV3
from search.tables.ofa_mobilenetv3 import FILE, read_ofa_tables

if TYPE_CHECKING:
    from search.tasks.base import Task


class OFALatency(LatencyTerm):
    """``(latency on a Samsung Note10 / target)^w`` (MnasNet, eq. 2 and 3).

    Args:
        task: whose score is weighed, on `OFAMobileNetV3`.
        target_milliseconds: T.
        alpha: the exponent up to the target, at most 0.
        beta: the exponent above it, at most 0; None for ``alpha``.
        table: the file with the latencies (format: `search.tables.ofa_mobilenetv3`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or the space is another one, or a number is out of range.
    """

    instant, quantity = True, "Note10 latency"

    def __init__(
        self,
        task: Task,
        target_milliseconds: float,
        alpha: float = -0.07,
        beta: Optional[float] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        table: str = FILE,
    ):
        super().__init__(task, alpha, beta)
        if not target_milliseconds > 0:
            raise ValueError(f"target_milliseconds is {target_milliseconds}, a number above 0 is needed")
        self._tables, self._target = read_ofa_tables(table, task.space), float(target_milliseconds)
        self.described = f"(Note10 latency / {self._target:.3g} ms)^{self._power()}"

    @classmethod
    def toy(cls) -> dict[str, Any] | None:
        """Its file does not ship."""
        return None

    def target_milliseconds(self) -> float:
        """T."""
        return self._target

    def measure(self, archs: Tensor) -> Tensor:
        """Milliseconds."""
        assert isinstance(self.space, OFAMobileNetV3)
        return self._tables.latency(self.space.unrolled(archs))
