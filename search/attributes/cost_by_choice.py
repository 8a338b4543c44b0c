"""An attribute as a sum over choices, where it is one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_modules.path_samplers.additive_cost import AdditiveCost
from search.attributes.base import Attribute
from search.spaces.base import SearchSpace

_PROBES = 3
_TOLERANCE = 1e-3


class CostByChoice(AdditiveCost):
    """What an attribute's value changes by where one choice of a fixed architecture changes.

    So a latency that is measured on this machine operator by operator (`OperatorLatency`), FLOPs or parameters can be
    what a differentiable search is charged for. Where layers follow one another, as in FBNet's space, these are sums
    over choices; whether they are is looked at on a few random architectures. Values are not measured before they are
    asked for.

    Args:
        space: without choices that rule out others.
        of: the attribute.
    """

    def __init__(self, space: SearchSpace, of: Callable[[SearchSpace], Attribute]):
        self.space, self._attribute = space, of(space)
        self._found: tuple[float, list[Tensor]] | None = None

    def constant(self) -> float:
        """The value of the architecture of the first choices.

        Raises:
            ValueError: the attribute is not a sum over choices.
        """
        return self._measured()[0]

    def prices(self) -> list[Tensor]:
        """What each choice adds to that, float64 ``[choices]`` for each decision.

        Raises:
            ValueError: the attribute is not a sum over choices.
        """
        return self._measured()[1]

    def _measured(self) -> tuple[float, list[Tensor]]:
        if self._found is None:
            first = torch.zeros(len(self.space.sizes), dtype=torch.long)
            changed = torch.stack(
                [
                    first.index_fill(0, torch.tensor(t), choice)
                    for t, size in enumerate(self.space.sizes)
                    for choice in range(size)
                ]
            )
            if not bool(self.space.is_valid(changed).all()):
                raise ValueError(f"{self.space.name}: some choices rule out others, so nothing is a sum over them")
            constant = float(self._attribute.values(first))
            prices = list((self._attribute.values(changed) - constant).split(self.space.sizes))
            self._check(constant, prices)
            self._found = constant, prices
        return self._found

    def _check(self, constant: float, prices: list[Tensor]) -> None:
        for number in range(_PROBES):
            arch = self.space.draw("cost by choice", number)
            added = constant + sum(float(own[choice]) for own, choice in zip(prices, arch, strict=True))
            value = float(self._attribute.values(torch.tensor(arch)))
            if not abs(added - value) <= _TOLERANCE * abs(value):  # a NaN is no sum either
                raise ValueError(
                    f"{self._attribute.name} of {self.space.format(arch)} is {value:g} {self._attribute.unit}, the sum "
                    f"over its choices {added:g}: it is no sum over choices"
                )
