"""What architectures cost as a sum over their choices, which is the cost that a relaxation can be charged for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_modules.path_samplers.base import Space


class AdditiveCost(ABC):
    """A cost of an architecture: a constant, and a price of each choice in each decision.

    Args:
        space: whose architectures.
    """

    @abstractmethod
    def constant(self) -> float:
        """What every architecture costs: stem, head, and whatever its unit is."""

    @abstractmethod
    def prices(self) -> list[Tensor]:
        """For each decision what each of its choices adds, float ``[choices]``, in the unit of the constant."""


class PriceByName(AdditiveCost):
    """Prices by the names of choices, the same in every decision: measurements of one's own, or what one would have.

    Args:
        space: whose choices have these names.
        prices: of choices by their names; of others 0.
        constant: what every architecture costs.

    Raises:
        ValueError: no decision has a choice of such a name.
    """

    def __init__(self, space: Space, prices: Mapping[str, float], constant: float = 0.0):
        known = {choice for decision in space.decisions for choice in decision.choices}
        if foreign := [name for name in prices if name not in known]:
            raise ValueError(f"prices: no choice is called '{foreign[0]}'; choices are {', '.join(sorted(known))}")
        self._constant = float(constant)
        self._prices = [
            torch.tensor([float(prices.get(choice, 0.0)) for choice in decision.choices])
            for decision in space.decisions
        ]

    def constant(self) -> float:
        """As given."""
        return self._constant

    def prices(self) -> list[Tensor]:
        """As given, 0 where nothing was."""
        return self._prices


def expected_cost(constant: float, prices: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The expectation over independent choices (FBNet, sec. 3.3): a scalar; a gradient passes through the weights.

    Args:
        constant: of every architecture.
        prices: ``[choices]`` each.
        weights: probability of each choice, ``[choices]`` each.
    """
    return constant + torch.stack([(own * weight).sum() for own, weight in zip(prices, weights, strict=True)]).sum()
