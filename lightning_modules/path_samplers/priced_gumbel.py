"""GDAS with a price on its choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

from torch import Tensor

from lightning_modules.path_samplers.additive_cost import AdditiveCost, expected_cost
from lightning_modules.path_samplers.base import Space, check_at_least
from lightning_modules.path_samplers.gumbel import GumbelSampler
from lightning_modules.path_samplers.learned import MakeOptimizer


class PricedGumbelSampler(GumbelSampler):
    """Logits that move down the loss and ``strength`` times what the path is expected to cost.

    With `search.attributes.topology.Topology` as the cost it is IRLAS' reward in a differentiable search (Guo et al.,
    CVPR 2019, which has a variant of DARTS); any other sum over choices does as well.

    Args:
        space: what can be sampled.
        cost: what an architecture costs, as a sum over its choices.
        strength: of the cost beside the loss, in the loss' unit.
        learning_rate: as for `GumbelSampler`.
        betas: likewise.
        weight_decay: likewise.
        temperature: likewise.
        final_temperature: likewise.
        candidates: likewise.
        ranked: likewise.
        optimizer: likewise.
        steps_every: likewise.
        warmup: likewise.
    """

    def __init__(
        self,
        space: Space,
        cost: Callable[[Space], AdditiveCost],
        strength: float = 0.3,
        learning_rate: float = 6e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        temperature: float = 10.0,
        final_temperature: float = 0.1,
        candidates: int = 1000,
        ranked: int = 10,
        optimizer: Optional[MakeOptimizer] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        steps_every: int = 1,
        warmup: int = 0,
    ):
        super().__init__(
            space,
            learning_rate,
            betas,
            weight_decay,
            temperature,
            final_temperature,
            candidates,
            ranked,
            optimizer,
            steps_every,
            warmup,
        )
        self._needs_softmax_each("PricedGumbelSampler")
        check_at_least(0, strength=strength)
        priced = cost(space)
        self.strength, self._constant = strength, priced.constant()
        self._prices = [each.float() for each in priced.prices()]

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, and no price, of any space."""
        return {**super().toy(), "cost": {"class_path": "PriceByName", "init_args": {"prices": {}}}}

    def penalty(self, weights: Sequence[Tensor]) -> Tensor:
        """What the path is expected to cost, times the strength."""
        return self.strength * expected_cost(self._constant, self._prices, weights)
