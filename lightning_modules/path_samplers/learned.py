"""What samplers that learn by gradient have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import Choices, PathSampler, Space, check_at_least


class LearnedSampler(PathSampler):
    """A sampler with an optimiser of its own, `_optimizer`, whose state a checkpoint holds.

    It stays on the CPU, where which operation to run must be known.
    """

    _optimizer: Optimizer

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Stay on the CPU, whatever device the supernet moves to."""
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's moments."""
        return {"optimizer": self._optimizer.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue with them."""
        self._optimizer.load_state_dict(state["optimizer"])


MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Makes an optimiser of parameters, as ``torch.optim.Adam`` does."""


class LogitsSampler(LearnedSampler):
    """A sampler with logits as the space's relaxation wants them, which an optimiser moves.

    Args:
        space: what can be sampled.
        learning_rate: of the logits.
        betas: of Adam.
        weight_decay: of the logits.
        optimizer: of the logits, in place of Adam with such a learning rate, betas and weight decay.
        steps_every: steps of the weights for each one of the logits.
        warmup: epochs in which the logits stay as they are.
    """

    def __init__(
        self,
        space: Space,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        optimizer: MakeOptimizer | None = None,
        steps_every: int = 1,
        warmup: int = 0,
    ):
        super().__init__(space)
        check_at_least(1, steps_every=steps_every)
        check_at_least(0, warmup=warmup)
        self.steps_every, self.warmup = steps_every, warmup
        self.relaxation = space.relaxation()
        generator = torch.Generator().manual_seed(0)
        # 1e-3 N(0, 1): the start of the published searches, so that no choice is ahead.
        self.logits = nn.ParameterList(
            1e-3 * torch.randn(shape, generator=generator) for shape in self.relaxation.shapes()
        )
        if optimizer is None:
            optimizer = partial(
                torch.optim.Adam, lr=learning_rate, betas=(betas[0], betas[1]), weight_decay=weight_decay
            )
        self._optimizer = optimizer(self.logits.parameters())

    def _needs_softmax_each(self, who: str) -> None:
        """Refuse a space in which the weight of a choice depends on other decisions.

        Args:
            who: needs it.

        Raises:
            ValueError: such a space.
        """
        if any(len(shape) > 1 for shape in self.relaxation.shapes()):
            raise ValueError(f"{who} is for spaces in which every decision has a softmax of its own")

    def likeliest(self, count: int) -> list[Choices]:
        """The likeliest architectures, best first."""
        return self.relaxation.decode([each.detach() for each in self.logits], count)


def moved(path: Path, supernet: nn.Module) -> Path:
    """A path with its weights where the supernet is, in one copy; their gradients come back in one."""
    assert path.weights is not None
    device = next((each.device for each in supernet.parameters()), torch.device("cpu"))
    flat = torch.cat([each.flatten() for each in path.weights]).to(device, non_blocking=True)
    parts = flat.split([each.numel() for each in path.weights])
    return replace(path, weights=tuple(part.view_as(each) for part, each in zip(parts, path.weights, strict=True)))
