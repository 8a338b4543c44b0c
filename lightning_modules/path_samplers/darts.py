"""Continuous relaxation: DARTS, first and second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import ArchitectureStep, Choices, Evaluate, Space
from lightning_modules.path_samplers.learned import LogitsSampler, MakeOptimizer, moved


class DARTSSampler(LogitsSampler):
    """Differentiable architecture search (DARTS, Liu et al., ICLR 2019): every operation runs, weighted by a softmax.

    After each step of the weights the logits move down the held-out loss. First order takes the weights as they are;
    second order takes them one step ahead on the training batch (DARTS, eq. 7 and 8), which `unrolled_gradient` does.

    The logits stay on the CPU; one small transfer each way a step.

    Args:
        space: what can be sampled.
        order: 1 or 2.
        learning_rate: of the logits, Adam (DARTS' code: 3e-4).
        betas: of the same (DARTS' code: 0.5, 0.999).
        weight_decay: of the same (DARTS' code: 1e-3).
        soft_one_shot: how much the chosen one of ``n`` operations stands out when a given architecture runs, as a
            landmark or to be evaluated: its weight is ``1/n + soft_one_shot``, those of the others are
            ``1/n - soft_one_shot / (n - 1)`` (Landmark Regularization's code: 0.01 for PC-DARTS). None runs nothing
            but the chosen operations.
        optimizer: of the logits, in place of Adam with such a learning rate, betas and weight decay.
        steps_every: steps of the weights for each one of the logits.
        warmup: epochs in which the logits stay as they are.

    Raises:
        ValueError: the order is neither 1 nor 2, or a weight of `soft_one_shot` would be negative.
    """

    relaxed = True
    chooses_in_own_order = True

    def __init__(
        self,
        space: Space,
        order: int = 1,
        learning_rate: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        soft_one_shot: float | None = None,
        optimizer: Optional[MakeOptimizer] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        steps_every: int = 1,
        warmup: int = 0,
    ):
        super().__init__(space, learning_rate, betas, weight_decay, optimizer, steps_every, warmup)
        if order not in (1, 2):
            raise ValueError(f"order is {order}, it must be 1 or 2")
        highest = min(((size - 1) / size for size in space.sizes if size > 1), default=1.0)
        if soft_one_shot is not None and not 0 < soft_one_shot <= highest:
            raise ValueError(
                f"soft_one_shot is {soft_one_shot}, it must be above 0 and at most {highest:.3g}, or an operation's "
                "weight would be negative"
            )
        if soft_one_shot is not None:
            self._needs_softmax_each("soft_one_shot")
        self.order, self.soft_one_shot = order, soft_one_shot

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Arguments that let a few steps change what is chosen, by the longer of the two ways."""
        return {"learning_rate": 0.5, "order": 2}

    def path(self, seed: int, step: int, index: int = 0) -> Path:
        """All operations, by the softmax of the logits: the same at every index of a step."""
        # On the CPU as scalars, which every device multiplies by without waiting.
        return self.relaxation.path([each.detach() for each in self.logits])

    def path_of(self, choices: Sequence[int]) -> Path:
        """Nothing but the chosen operations, or with `soft_one_shot` all of them and the chosen ones a little more."""
        if self.soft_one_shot is None:
            return super().path_of(choices)
        weights = []
        for size, choice in zip(self.space.sizes, choices, strict=True):
            weight = torch.full((size,), 1 / size)
            if size > 1:
                weight -= self.soft_one_shot / (size - 1)
                weight[choice] = 1 / size + self.soft_one_shot
            weights.append(weight)
        return Path(None, tuple(weights))

    def learn(self, step: ArchitectureStep) -> None:
        """Move the logits down the held-out loss."""
        logits = list(self.logits)

        def relaxed() -> Path:
            return moved(self.relaxation.path(logits), step.supernet)

        def held_out_loss() -> Tensor:
            path = self.relaxation.path(logits)
            assert path.weights is not None
            return self.architecture_loss(step.held_out_loss(moved(path, step.supernet)), path.weights)

        if self.order == 1:
            gradients = _gradients(held_out_loss(), logits)
        else:
            gradients = unrolled_gradient(
                logits,
                [each for each in step.supernet.parameters() if each.requires_grad],
                train_loss=lambda: step.train_loss(relaxed()),
                held_out_loss=held_out_loss,
                learning_rate=step.learning_rate,
            )
        for each, gradient in zip(logits, gradients, strict=True):
            each.grad = gradient
        step.average(logits)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """The likeliest architecture, which is the argmax where nothing is ruled out, then the next likely ones."""
        return self.likeliest(count)


def unrolled_gradient(
    logits: Sequence[Tensor],
    weights: Sequence[Tensor],
    train_loss: Callable[[], Tensor],
    held_out_loss: Callable[[], Tensor],
    learning_rate: float,
) -> list[Tensor]:
    """Gradient of the held-out loss after one step of the weights on the training batch (DARTS, eq. 7 and 8).

    ``w' = w - learning_rate * d train / d w``; the mixed second derivative is a finite difference of the logits'
    gradient at ``w +- epsilon * d held_out / d w'`` with ``epsilon = 0.01 / |d held_out / d w'|``. Momentum and weight
    decay, which DARTS' code adds to the step, are left out: the step tells of neither.

    Args:
        logits: of the architecture.
        weights: of the network; afterwards exactly as before.
        train_loss: on the batch of the weights, at the logits and weights as they are when called.
        held_out_loss: on a batch of the other half, likewise.
        learning_rate: of the step ahead.

    Returns:
        One gradient for each of ``logits``.
    """
    before = [each.detach().clone() for each in weights]

    def place(direction: Sequence[Tensor], scale: float | Tensor) -> None:
        with torch.no_grad():
            for weight, old, along in zip(weights, before, direction, strict=True):
                weight.copy_(old + scale * along)

    try:
        place(_gradients(train_loss(), weights), -learning_rate)
        both = _gradients(held_out_loss(), [*logits, *weights])
        direct, slope = both[: len(logits)], both[len(logits) :]
        norm = torch.stack([each.norm() for each in slope]).norm() if slope else torch.zeros(())
        # A slope of zero has no direction, and the finite differences along it are zero.
        epsilon = 0.01 / norm.clamp(min=1e-12)
        place(slope, epsilon)
        above = _gradients(train_loss(), logits)
        place(slope, -epsilon)
        below = _gradients(train_loss(), logits)
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
    scale = (learning_rate / (2 * epsilon)).cpu()
    return [each - scale * (up - down) for each, up, down in zip(direct, above, below, strict=True)]


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a loss, zero where it does not depend on an input; nothing is left on any parameter."""
    found = torch.autograd.grad(loss, list(inputs), allow_unused=True) if loss.requires_grad else [None] * len(inputs)
    return [
        torch.zeros_like(each) if gradient is None else gradient for each, gradient in zip(inputs, found, strict=True)
    ]
