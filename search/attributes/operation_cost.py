"""What each operation costs, as the difference between whole networks (CAS, Zhang et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_modules.path_samplers.additive_cost import AdditiveCost
from search.attributes.base import Attribute
from search.errors import nearest
from search.spaces.base import SearchSpace


class OperationCost(AdditiveCost):
    """The cost of each operation: what a network of nothing else has more than one of nothing but the identity.

    That difference, in latency, parameters or FLOPs, is shared out evenly among the decisions that have the operation
    as a choice, so that the prices of a network of one operation add up to it. In other decisions every choice is
    free. As many networks are measured as there are operations, when they are first asked for.

    Args:
        space: whose decisions have operations for choices, the identity among them.
        of: the attribute; `OperatorLatency` for the latency on this machine.
        identity: name of the choice that costs nothing.
        normalised: give prices as shares of the largest difference, so that a weight means the same for every
            attribute.

    Raises:
        ValueError: no decision has such a choice.
    """

    def __init__(
        self,
        space: SearchSpace,
        of: Callable[[SearchSpace], Attribute],
        identity: str = "identity",
        normalised: bool = True,
    ):
        self.space, self._attribute, self.normalised = space, of(space), normalised
        self._decisions = [t for t, decision in enumerate(space.decisions) if identity in decision.choices]
        if not self._decisions:
            names = sorted({choice for decision in space.decisions for choice in decision.choices})
            raise ValueError(f"{space.name}: no choice is called '{identity}'{nearest(identity, names)}")
        choices = (space.decisions[t].choices for t in self._decisions)
        self.operations = (identity, *dict.fromkeys(name for own in choices for name in own if name != identity))
        self._found: tuple[float, dict[str, float]] | None = None

    def constant(self) -> float:
        """The value of the network of identities, in the unit of the prices."""
        return self._measured()[0]

    def costs(self) -> dict[str, float]:
        """The cost of each operation by its name, that of the identity 0, before it is shared out."""
        return self._measured()[1]

    def prices(self) -> list[Tensor]:
        """What each choice costs in each decision, float64 ``[choices]``; 0 where no operation is decided."""
        costs = self.costs()
        share = {
            name: cost / sum(name in self.space.decisions[t].choices for t in self._decisions)
            for name, cost in costs.items()
        }
        return [
            torch.tensor([share[name] if t in self._decisions else 0.0 for name in decision.choices]).double()
            for t, decision in enumerate(self.space.decisions)
        ]

    def _measured(self) -> tuple[float, dict[str, float]]:
        if self._found is None:
            identity, *others = self.operations
            archs = torch.tensor([self._of_one(name) for name in self.operations])
            if not bool(self.space.is_valid(archs).all()):
                raise ValueError(f"{self.space.name}: a network of one operation everywhere is none of its networks")
            base, *values = self._attribute.values(archs).tolist()
            costs = {identity: 0.0} | {name: value - base for name, value in zip(others, values, strict=True)}
            scale = max(map(abs, costs.values())) if self.normalised else 1.0
            if not 0 < scale < float("inf"):  # a NaN is none either
                raise ValueError(f"{self.space.name}: {self._attribute.name} is the same for every operation, or none")
            self._found = base / scale, {name: cost / scale for name, cost in costs.items()}
        return self._found

    def _of_one(self, name: str) -> list[int]:
        """The architecture of one operation wherever it can be chosen, and of first choices elsewhere."""
        return [
            decision.choices.index(name) if t in self._decisions and name in decision.choices else 0
            for t, decision in enumerate(self.space.decisions)
        ]
