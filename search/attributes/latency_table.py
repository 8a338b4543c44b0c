"""How long a network takes on a device, looked up."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from search.attributes.base import Attribute
from search.evaluation import Architecture
from search.spaces.base import SearchSpace
from search.tables.latency import read_latency


class TableLatency(Attribute):
    """The measured latency of a NAS-Bench-201 network on one device.

    Args:
        space: NAS-Bench-201.
        device: one of the table's.
        table: the latencies' path (format: `search.tables.latency`).

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: there is no such device (the nearest spelling is named), or the space is another one.
    """

    name = "latency"
    unit = "ms"
    direction = "min"

    def __init__(self, space: SearchSpace, device: str, table: str = "nasbench201_latency.npz"):
        super().__init__(space)
        self.device = device
        self._milliseconds = read_latency(table, space).of(device)

    @classmethod
    def toy(cls) -> dict[str, str]:
        """A device of the table that ships."""
        return {"device": "pixel3"}

    def measure(self, architectures: Sequence[Architecture]) -> list[float]:
        """The table's values; NaN where nothing was measured."""
        return self._milliseconds[self.space.code(torch.tensor(architectures))].tolist()
