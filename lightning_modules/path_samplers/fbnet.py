"""All operations at once, weighted by a Gumbel softmax, against the latency that they would have: FBNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.additive_cost import AdditiveCost, expected_cost
from lightning_modules.path_samplers.base import ArchitectureStep, Choices, Evaluate, Space, check_at_least
from lightning_modules.path_samplers.learned import LogitsSampler, MakeOptimizer, moved

_FLOOR = 2.0
"""The latency that a lower one counts as, in units: the logarithm of one unit is 0, and less has no root."""
_OF_THE_LOGITS = 1 << 20
"""Number of the logits' own path in a step, away from those of the weights."""


class FBNetSampler(LogitsSampler):
    """Differentiable search against a device's latency (FBNet, Wu et al., CVPR 2019).

    Every operation of a layer runs, weighted by a Gumbel softmax of the layer's logits, with noise of its own for each
    step (sec. 3.3). The temperature falls with each epoch, so weights become choices. The logits move down
    ``CE * alpha * log(LAT)^beta`` (sec. 3.2), LAT being the latency that the weights expect.

    What alpha is makes no difference to Adam, and beta is how much a relative change of log(LAT) counts beside the same
    one of the loss. The unit counts too: ``d ln(loss) / d ln(LAT) = beta / ln(LAT)``, for 20 ms 0.2 in milliseconds and
    0.06 in microseconds. Which unit FBNet takes is not known here; microseconds are those of a re-implementation which
    has the same alpha, beta and optimisers (AnnaAraslanova/FBNet).

    The weights of the network learn from the loss without the latency's factor, as with every sampler. Operations
    whose weight is below ``smallest_weight`` need not run.

    Args:
        space: what can be sampled; each of its decisions has a softmax of its own.
        latency: what an architecture costs, as a sum over its choices.
        unit: of the latency in the logarithm, in the unit of ``latency``: 0.001 for a table in milliseconds stands for
            microseconds. Less than two units count as two.
        alpha: factor of the latency (recalled, not verified: 0.2).
        beta: exponent of its logarithm (recalled, not verified: 0.6); 0 leaves latency out.
        temperature: of the first epoch (recalled, not verified: 5).
        temperature_decay: its factor from each epoch to the next (recalled, not verified: exp(-0.045)).
        learning_rate: of the logits, Adam (recalled, not verified: 0.01).
        betas: of Adam; torch's.
        weight_decay: of the logits (recalled, not verified: 5e-4).
        smallest_weight: by default half of single precision's epsilon: what is left out is less than the rounding of
            what is not. With 16-bit activations 2^-12 is as good a bound.
        candidates: architectures that are drawn at the end before the likeliest ones fill what is missing of different
            ones.
        optimizer: of the logits, in place of Adam with such a learning rate, betas and weight decay.
        steps_every: steps of the weights for each one of the logits; 4 where a fifth of the images is held out, so that
            an epoch takes each image once.
        warmup: epochs in which the logits stay as they are (recalled, not verified: 10 of 90).

    Raises:
        ValueError: a number is out of range, or a decision's logits are not one softmax.
    """

    chooses_in_own_order = True

    def __init__(
        self,
        space: Space,
        latency: Callable[[Space], AdditiveCost],
        unit: float = 0.001,
        alpha: float = 0.2,
        beta: float = 0.6,
        temperature: float = 5.0,
        temperature_decay: float = 0.956,
        learning_rate: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 5e-4,
        smallest_weight: float = 2.0**-24,
        candidates: int = 1000,
        optimizer: Optional[MakeOptimizer] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
        steps_every: int = 1,
        warmup: int = 10,
    ):
        super().__init__(space, learning_rate, betas, weight_decay, optimizer, steps_every, warmup)
        self._needs_softmax_each("FBNetSampler")
        if not (unit > 0 and temperature > 0 and 0 < temperature_decay <= 1):
            raise ValueError(
                f"unit is {unit}, temperature {temperature} and temperature_decay {temperature_decay}: all must be "
                "above 0, the last one at most 1"
            )
        if not 0 <= smallest_weight < 1 / max(space.sizes):
            raise ValueError(
                f"smallest_weight is {smallest_weight}, it must be at least 0 and below 1/{max(space.sizes)}, or no "
                "operation might run"
            )
        check_at_least(0, alpha=alpha, beta=beta)
        check_at_least(1, candidates=candidates)
        self.unit, self.alpha, self.beta = unit, alpha, beta
        self.initial_temperature, self.temperature_decay = temperature, temperature_decay
        self.smallest_weight, self.candidates = smallest_weight, candidates
        self._latency = latency(space)
        self._priced: tuple[float, list[Tensor]] | None = None
        with torch.no_grad():
            for each in self.logits:
                each.zero_()  # all operations alike, exactly: the noise of each step is enough to tell them apart
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """The same latency for all, of any space; the higher learning rate lets a few steps change what is chosen."""
        by_name = {"class_path": "PriceByName", "init_args": {"prices": {}, "constant": 1.0}}
        return {"latency": by_name, "learning_rate": 0.5, "candidates": 60, "warmup": 0}

    @property
    def temperature(self) -> float:
        """Of the present epoch."""
        return self.initial_temperature * self.temperature_decay ** int(self.get_buffer("epochs"))

    def path(self, seed: int, step: int, index: int = 0) -> Path:
        """All operations, by the Gumbel softmax under this step's noise."""
        with torch.no_grad():
            return self._drawn(seed, step, index)

    def _drawn(self, *seed: int) -> Path:
        """A path whose noise is a function of the seed; gradients pass to the logits."""
        generator = np.random.default_rng(np.random.SeedSequence(seed))
        noise = [torch.from_numpy(generator.gumbel(size=tuple(each.shape))).float() for each in self.logits]
        path = self.relaxation.path(list(self.logits), noise, self.temperature)
        assert path.weights is not None
        active = tuple(
            tuple(choice for choice, weight in enumerate(weights.tolist()) if weight >= self.smallest_weight)
            for weights in path.weights
        )
        return replace(path, active=active)

    def expected_latency(self, weights: Sequence[Tensor]) -> Tensor:
        """LAT of some weights (FBNet, sec. 3.3): a scalar in the unit of the table."""
        if self._priced is None:  # not before it is needed: prices may have to be measured
            self._priced = self._latency.constant(), [each.float() for each in self._latency.prices()]
        return expected_cost(*self._priced, weights)

    def penalty(self, weights: Sequence[Tensor]) -> Tensor:
        """The factor of the loss, ``alpha * log(LAT)^beta`` (FBNet, sec. 3.2)."""
        return self.alpha * (self.expected_latency(weights) / self.unit).clamp(min=_FLOOR).log() ** self.beta

    def architecture_loss(self, loss: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The product of both, in place of the sum that other samplers take."""
        return loss * self.penalty(weights).to(loss.device, non_blocking=True)

    def learn(self, step: ArchitectureStep) -> None:
        """Move the logits down the held-out loss, times the latency's factor, of a path of their own."""
        path, logits = self._drawn(step.seed, step.step, _OF_THE_LOGITS), list(self.logits)
        assert path.weights is not None
        loss = self.architecture_loss(step.held_out_loss(moved(path, step.supernet)), path.weights)
        for each, gradient in zip(logits, torch.autograd.grad(loss, logits), strict=True):
            each.grad = gradient
        step.average(logits)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def epoch_ended(self, evaluate: Evaluate, seed: int, epoch: int, epochs: int) -> None:
        """Cool down."""
        self.get_buffer("epochs").fill_(epoch + 1)

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """Different architectures drawn by the softmax of the logits, the likeliest first.

        FBNet draws six, trains each, and keeps the best. Where the logits leave no room for so many, those that are
        missing are the likeliest of the others.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            draws = self.relaxation.sample(list(self.logits), max(self.candidates, count), generator)
            log_probs = [each.double().log_softmax(0) for each in self.logits]
        drawn = dict.fromkeys(tuple(draw) for draw in draws[self.space.is_valid(draws)].tolist())
        chosen = list(drawn)[:count]
        if len(chosen) < count:
            chosen += [each for each in self.likeliest(count + len(chosen)) if each not in drawn][: count - len(chosen)]

        def likelihood(arch: Choices) -> float:
            return float(sum(own[choice] for own, choice in zip(log_probs, arch, strict=True)))

        return sorted(chosen, key=likelihood, reverse=True)
