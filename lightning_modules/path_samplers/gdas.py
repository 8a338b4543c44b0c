"""GDAS as published: Gumbel hard paths, and the likeliest architecture at the end."""

from __future__ import annotations

from typing import Any, Optional

from lightning_modules.path_samplers.base import Choices, Evaluate, Space
from lightning_modules.path_samplers.gumbel import GumbelSampler
from lightning_modules.path_samplers.learned import MakeOptimizer


class GDASSampler(GumbelSampler):
    """`GumbelSampler` with the settings of GDAS' code, which decodes its logits and evaluates nothing.

    On `GDASCells` and `FixedReduction` every edge of a cell draws an operation or none, and the likeliest two (node,
    operation) terms of each node are kept (Dong and Yang, CVPR 2019).

    Args:
        space: what can be sampled.
        learning_rate: of the logits, Adam (GDAS' code: 3e-4).
        betas: of Adam (GDAS' code: 0.5, 0.999).
        weight_decay: of the logits (GDAS' code: 1e-3).
        temperature: at the first step (GDAS' code: 10).
        final_temperature: at the last; linear between them (GDAS' code: 0.1).
        optimizer: of the logits, in place of Adam with such a learning rate, betas and weight decay.
        steps_every: steps of the weights for each one of the logits.
        warmup: epochs in which the logits stay as they are.
    """

    chooses_in_own_order = True

    def __init__(
        self,
        space: Space,
        learning_rate: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        temperature: float = 10.0,
        final_temperature: float = 0.1,
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
            optimizer=optimizer,
            steps_every=steps_every,
            warmup=warmup,
        )

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """The higher learning rate lets a few steps change what is chosen."""
        return {"learning_rate": 0.5}

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """The likeliest architecture, then the next likely ones."""
        return self.likeliest(count)
