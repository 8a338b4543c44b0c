"""How long a network of FBNet's space takes on a device, looked up operator by operator."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_modules.networks.fbnet import LAYERS
from lightning_modules.path_samplers.additive_cost import AdditiveCost
from search.attributes.base import Attribute
from search.evaluation import Architecture
from search.spaces.base import SearchSpace
from search.spaces.fbnet import FBNet
from search.tables.fbnet_latency import read_fbnet_latencies


class FBNetLatency(Attribute, AdditiveCost):
    """The latency of a network of FBNet's space on one device, as the sum of its operators' (FBNet, sec. 3.2).

    It is that of the network at full width for pictures of 224 pixels, whatever size of it a recipe trains. A space
    with fewer layers takes those of its stages from the front; the stages that it lacks cost what skipping them does.

    Args:
        space: FBNet's.
        device: one of the table's.
        table: the latencies' path (format: `search.tables.fbnet_latency`).

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: there is no such device (the nearest spelling is named), the table says little about it, the space
            is another one, or it has more layers in a stage than the table.
    """

    name = "latency by operators"
    unit = "ms"
    direction = "min"

    def __init__(self, space: SearchSpace, device: str, table: str = "fbnet_operator_latency.npz"):
        super().__init__(space)
        self.device = device
        latencies = read_fbnet_latencies(table, device)
        if not isinstance(space, FBNet):
            raise ValueError(f"{table}: its latencies are of the space '{FBNet.name}', this is '{space.name}'")
        rows: list[int] = []
        begin = 0
        for stage, (own, all_layers) in enumerate(zip(space.layers, LAYERS, strict=False), start=1):
            if own > all_layers:
                raise ValueError(f"{table}: stage {stage} has {all_layers} layers in it, the space's has {own}")
            rows += range(begin, begin + own)
            begin += all_layers
        self._all_skip, self._extra = latencies.all_skip, latencies.extra[rows]

    @classmethod
    def toy(cls) -> dict[str, str]:
        """A device of the table that ships."""
        return {"device": "pixel3"}

    @classmethod
    def toy_space(cls) -> FBNet:
        """FBNet's, with three layers."""
        return FBNet(**FBNet.toy())

    def constant(self) -> float:
        """Milliseconds of the network whose layers are all skipped."""
        return self._all_skip

    def prices(self) -> list[Tensor]:
        """Milliseconds that each operation takes more than skipping its layer, float64 ``[9]`` for each layer."""
        return list(self._extra)

    def measure(self, architectures: Sequence[Architecture]) -> list[float]:
        """Milliseconds of each."""
        return [
            self._all_skip + sum(float(own[choice]) for own, choice in zip(self._extra, architecture, strict=True))
            for architecture in architectures
        ]
