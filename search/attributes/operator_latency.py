"""How long a network takes on this machine, as the sum of its operators."""

from __future__ import annotations

import functools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from lightning_modules.networks.cost.latency import LatencySettings
from lightning_modules.networks.cost.operator_latency import OperatorLatencies, operators_of
from search.attributes.network import NetworkAttribute
from search.spaces.base import SearchSpace


class OperatorLatency(NetworkAttribute):
    """The latency of a network as the sum of its operators', each measured once on this machine and kept in a file.

    What the file has is looked up, so a value is a function of the architecture and the file. One process at a time may
    write a file.

    Args:
        space: builds the networks.
        lookup: a JSON file with operators' latencies, made if absent.
        build: arguments of `SearchSpace.build_from`, such as the width; None for its defaults.
        settings: how to measure what is not in the file, a dict of the same keys does as well; resolution 224 and one
            thread of the CPU where it is None.

    Raises:
        ValueError: the file is of another machine or setting, or there is no folder for it, or no such device.
    """

    name = "latency by operators"
    unit = "ms"
    direction = "min"

    def __init__(
        self,
        space: SearchSpace,
        lookup: str,
        build: dict[str, Any] | None = None,
        settings: LatencySettings | None = None,
    ):
        super().__init__(space, build, device="cpu")
        self.settings = settings if isinstance(settings, LatencySettings) else LatencySettings(**(settings or {}))
        self.lookup = Path(lookup)
        self.settings.check_device()
        if not self.lookup.parent.is_dir():
            raise ValueError(f"lookup: there is no folder '{self.lookup.parent}' to keep '{self.lookup.name}' in")
        exists = self.lookup.exists()
        self._table = OperatorLatencies.load(self.lookup, self.settings) if exists else OperatorLatencies(self.settings)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small images, each operator timed once; the file goes when the process does."""
        settings = {"resolution": 32, "warmup": 0, "repeats": 1, "rounds": 1}
        return {"lookup": str(Path(_of_this_process().name) / "operator_latency.json"), "settings": settings}

    def read(self, network: nn.Module) -> float:
        """Milliseconds of a pass on a batch."""
        operators = operators_of(network, self.settings)
        if self._table.measure(network, operators):
            self._table.save(self.lookup)
        return self._table.estimate(network, operators)


@functools.cache
def _of_this_process() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="catchmark-")
