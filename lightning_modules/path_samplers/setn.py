"""Uniform paths for the weights, a relaxation for the logits: SETN."""

from __future__ import annotations

from typing import Any, Optional

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import Choices, Evaluate, Space, best_of, check_at_least
from lightning_modules.path_samplers.darts import DARTSSampler
from lightning_modules.path_samplers.learned import MakeOptimizer


class SETNSampler(DARTSSampler):
    """Self-evaluated template network (SETN, Dong and Yang, ICCV 2019).

    The weights learn from uniformly random architectures, so none is starved; the logits learn from held-out batches
    as those of first-order DARTS do, with every operation weighted by the softmax. At the end the shared weights
    judge the likeliest architectures. Defaults are those of SETN's public code for NAS-Bench-201.

    Args:
        space: what can be sampled.
        learning_rate: of the logits, Adam (3e-4).
        betas: of the same (0.5, 0.999).
        weight_decay: of the same (1e-3).
        candidates: likeliest architectures that are evaluated at the end (100).
        optimizer: of the logits, in place of Adam with such a learning rate, betas and weight decay.
        steps_every: steps of the weights for each one of the logits.
        warmup: epochs in which the logits stay as they are.

    Raises:
        ValueError: there are no candidates.
    """

    relaxed = False
    chooses_in_own_order = False

    def __init__(
        self,
        space: Space,
        learning_rate: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        candidates: int = 100,
        optimizer: Optional[MakeOptimizer] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        steps_every: int = 1,
        warmup: int = 0,
    ):
        super().__init__(space, 1, learning_rate, betas, weight_decay, None, optimizer, steps_every, warmup)
        check_at_least(1, candidates=candidates)
        self.candidates = candidates

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments; the higher learning rate lets a few steps change what is chosen."""
        return {"learning_rate": 0.5, "candidates": 10}

    def path(self, seed: int, step: int, index: int = 0) -> Path:
        """A random architecture."""
        return Path(self.space.draw("path", seed, step, index))

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """The likeliest architectures by their worth, best first."""
        return best_of(self.likeliest(max(self.candidates, count)), evaluate)[:count]
