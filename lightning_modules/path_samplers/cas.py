"""Continuous relaxation with a price for each operation: CAS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from lightning_modules.path_samplers.additive_cost import AdditiveCost
from lightning_modules.path_samplers.base import Space, check_at_least
from lightning_modules.path_samplers.darts import DARTSSampler
from lightning_modules.path_samplers.learned import MakeOptimizer


class CASSampler(DARTSSampler):
    """Customizable architecture search (CAS, Zhang et al., CVPR 2019): DARTS with a price for each operation.

    The logits move down ``held-out loss + weight * sum of softmax(logits) * price``, the sum over all decisions and
    choices.

    Args:
        space: what can be sampled; each of its decisions has a softmax of its own.
        cost: the prices, for instance `OperationCost`; the constant changes nothing.
        weight: of the cost beside the loss, lambda; 0 for DARTS.
        order: of the gradient, 1 or 2.
        learning_rate: of the logits, Adam (DARTS' code: 3e-4).
        betas: of the same (DARTS' code: 0.5, 0.999).
        weight_decay: of the same (DARTS' code: 1e-3).
        optimizer: of the logits, in place of Adam with such a learning rate, betas and weight decay.
        steps_every: steps of the weights for each one of the logits.
        warmup: epochs in which the logits stay as they are (assumed: 10).

    Raises:
        ValueError: a number is out of range, or a decision's logits are not one softmax.
    """

    def __init__(
        self,
        space: Space,
        cost: Callable[[Space], AdditiveCost],
        weight: float = 0.1,
        order: int = 1,
        learning_rate: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        optimizer: Optional[MakeOptimizer] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        steps_every: int = 1,
        warmup: int = 10,
    ):
        super().__init__(space, order, learning_rate, betas, weight_decay, None, optimizer, steps_every, warmup)
        self._needs_softmax_each("CASSampler")
        check_at_least(0, weight=weight)
        self.weight, self._cost = weight, cost(space)
        self._prices: list[Tensor] | None = None

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """No prices, of any space; the higher learning rate lets a few steps change what is chosen."""
        by_name = {"class_path": "PriceByName", "init_args": {"prices": {}}}
        return {"cost": by_name, "learning_rate": 0.5, "warmup": 0}

    def penalty(self, weights: Sequence[Tensor]) -> Tensor:
        """The expected price of all decisions, times its weight."""
        if self._prices is None:
            self._prices = [each.float() for each in self._cost.prices()]
        expected = torch.stack([(own * each).sum() for own, each in zip(self._prices, weights, strict=True)])
        return self.weight * expected.sum()
