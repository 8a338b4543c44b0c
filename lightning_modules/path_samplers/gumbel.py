"""Gumbel hard paths: GDAS."""

from __future__ import annotations

from collections import Counter
from typing import Any, Optional

import numpy as np
import torch

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import ArchitectureStep, Choices, Evaluate, Space, best_of, check_at_least
from lightning_modules.path_samplers.learned import LogitsSampler, MakeOptimizer, moved

_TRIES = 100


class GumbelSampler(LogitsSampler):
    """Differentiable architecture sampling (GDAS, Dong and Yang, CVPR 2019).

    Each decision has logits. A path is the argmax of the logits with Gumbel noise; the gradient passes through the
    softmax of the same at a temperature that falls: ``h = onehot(argmax p) - stopgrad(p) + p``. Only chosen operations
    run. On a space with ruled-out choices an invalid draw is made again.

    The logits stay on the CPU, where which operation to run must be known, so a pass never waits for the accelerator to
    say so. Their weights go there in one copy a step, and their gradient comes back in one.

    Args:
        space: what can be sampled.
        learning_rate: of the logits, Adam (Landmark Regularization's code: 6e-4).
        betas: of Adam.
        weight_decay: of the logits.
        temperature: at the first step.
        final_temperature: at the last; linear between them.
        candidates: architectures drawn from the logits at the end (1,000).
        ranked: the most frequent of them, which the shared weights rank (10).
        optimizer: of the logits, in place of Adam with such a learning rate, betas and weight decay.
        steps_every: steps of the weights for each one of the logits.
        warmup: epochs in which the logits stay as they are.
    """

    def __init__(
        self,
        space: Space,
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
        super().__init__(space, learning_rate, betas, weight_decay, optimizer, steps_every, warmup)
        if not 0 < final_temperature <= temperature:
            raise ValueError(f"temperature falls from {temperature} to {final_temperature}: both must be above 0")
        check_at_least(1, candidates=candidates, ranked=ranked)
        self.temperature, self.final_temperature = temperature, final_temperature
        self.candidates, self.ranked = candidates, ranked

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments; the higher learning rate lets a few steps change what is chosen."""
        return {"learning_rate": 0.5, "candidates": 60, "ranked": 9}

    def _drawn(self, *seed: int, temperature: float = 1.0) -> Path:
        """The likeliest choices under Gumbel noise, which is a function of the seed."""
        for attempt in range(_TRIES):
            generator = np.random.default_rng(np.random.SeedSequence((*seed, attempt)))
            noise = [torch.from_numpy(generator.gumbel(size=tuple(each.shape))).float() for each in self.logits]
            path = self.relaxation.path(list(self.logits), noise, temperature, hard=True)
            # Without choices it weighs operations, of which no combination is ruled out.
            if path.choices is None or bool(self.space.is_valid(torch.tensor(path.choices))):
                return path
        raise RuntimeError(f"GumbelSampler: no valid architecture in {_TRIES} draws")

    def path(self, seed: int, step: int, index: int = 0) -> Path:
        """The most likely choices under this step's noise."""
        with torch.no_grad():
            path = self._drawn(seed, step, index)
        return path if path.choices is None else Path(path.choices)

    def learn(self, step: ArchitectureStep) -> None:
        """Move the logits down the held-out loss of a path of their own."""
        temperature = self.temperature + (self.final_temperature - self.temperature) * step.progress
        path = self._drawn(step.seed, step.step, 1 << 20, temperature=temperature)
        self._optimizer.zero_grad(set_to_none=True)
        # The weights of the network need no gradient here, so none is computed for them.
        parameters = [each for each in step.supernet.parameters() if each.requires_grad]
        for each in parameters:
            each.requires_grad_(False)
        try:
            assert path.weights is not None
            loss = self.architecture_loss(step.held_out_loss(moved(path, step.supernet)), path.weights)
            if loss.requires_grad:  # not where nothing that carries a weight reaches the output
                loss.backward()
        finally:
            for each in parameters:
                each.requires_grad_(True)
        step.average(self.logits.parameters())
        self._optimizer.step()

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """The most frequent of many draws from the logits, ranked by the shared weights."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            draws = self.relaxation.sample(list(self.logits), self.candidates, generator)
        valid = draws[self.space.is_valid(draws)].tolist()
        frequent = [arch for arch, _ in Counter(tuple(draw) for draw in valid).most_common(max(self.ranked, count))]
        return best_of(frequent, evaluate)[:count]
