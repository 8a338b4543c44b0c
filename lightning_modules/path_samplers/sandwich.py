"""The sandwich rule: each step trains the largest path, the smallest, and some between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import Choices, Space, check_at_least
from lightning_modules.path_samplers.uniform import UniformSampler


class SandwichSampler(UniformSampler):
    """Largest, random and smallest paths a step, of which the others learn what the largest says.

    The sandwich rule and in-place distillation are universally slimmable networks' (Yu and Huang, ICCV 2019, sec. 3),
    with two random paths between the ends. Published gradients are summed over a step's paths; here they are averaged,
    so that a learning rate means what it means for one path.

    A step costs ``random`` + 2 passes. Architectures are chosen by evolution on the shared weights, as by
    `UniformSampler`.

    Args:
        space: what can be sampled.
        random: paths between the largest and the smallest.
        distillation: how much the others learn from the largest's output, of 0 to 1; the rest from the targets.
        largest: in the place of the space's own, for a space whose choices are not in the order of their size.
        smallest: likewise.
        population: of the evolution that chooses at the end.
        tournament: architectures of which the best becomes a parent.
        budget: architectures that the evolution evaluates.

    Raises:
        ValueError: a number is out of range, or an end is no architecture of the space.
    """

    def __init__(
        self,
        space: Space,
        random: int = 2,
        distillation: float = 1.0,
        largest: Optional[Sequence[int]] = None,  # noqa: UP045 - read on Python 3.10
        smallest: Optional[Sequence[int]] = None,  # noqa: UP045
        population: int = 50,
        tournament: int = 10,
        budget: int = 1000,
    ):
        super().__init__(space, population, tournament, budget)
        check_at_least(0, random=random, distillation=distillation)
        if distillation > 1:
            raise ValueError(f"distillation is {distillation}, it must be at most 1")
        self.random, self.distillation = random, distillation
        self.largest = space.largest() if largest is None else _checked(space, "largest", largest)
        self.smallest = space.smallest() if smallest is None else _checked(space, "smallest", smallest)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {**super().toy(), "random": 1}

    def paths(self, seed: int, step: int) -> list[Path]:
        """The largest, random ones, and the smallest."""
        between = [self.path(seed, step, index) for index in range(self.random)]
        return [Path(self.largest), *between, Path(self.smallest)]


def _checked(space: Space, name: str, choices: Sequence[int]) -> Choices:
    right = len(choices) == len(space.sizes) and bool(space.is_valid(torch.tensor(list(choices))))
    if not right:
        raise ValueError(f"{name} is {list(choices)}, no architecture of the space")
    return tuple(choices)
