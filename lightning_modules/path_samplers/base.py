"""The contract of a path sampler.

A supernet's training asks its sampler for a path before every step, shows it a batch that the weights do not learn from
after it, and tells it when an epoch is over. Nothing else passes between them, so landmark regularisation, evaluation
and distributed training work with every sampler alike.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lightning_modules.networks.supernet import Path, Supernet

if TYPE_CHECKING:
    from lightning_modules.path_samplers.relaxation import Relaxation

Choices = tuple[int, ...]
"""An architecture: one choice a decision."""

Evaluate = Callable[[Sequence[Choices]], list[float]]
"""Worth of architectures with the shared weights, higher is better; the same on every rank."""


class Decision(Protocol):
    """One decision of a space."""

    @property
    def name(self) -> str:
        """Its own."""
        ...

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of its choices, as a table of costs may have them."""
        ...


class Space(Protocol):
    """What a sampler needs to know of a search space."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What is to be decided."""
        ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of choices of each decision."""
        ...

    def draw(self, *seed: int | str) -> Choices:
        """A random architecture: a pure function of the seed's parts, on every machine."""
        ...

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Which choices of a decision may follow those before it: int64 ``[t]`` to bool ``[choices]``."""
        ...

    def is_valid(self, archs: Tensor) -> Tensor:
        """Whether each architecture belongs to the space: int64 ``[..., decisions]`` to bool ``[...]``."""
        ...

    def neighbours(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """What a search may go on to: int64 ``[n, decisions]`` to ``[n, m, decisions]``, and which of them belong."""
        ...

    def smallest(self) -> Choices:
        """The architecture of the smallest network."""
        ...

    def largest(self) -> Choices:
        """The architecture of the largest network."""
        ...

    def canonical(self, archs: Tensor) -> Tensor:
        """One architecture for all that build the same network: int64 ``[..., decisions]`` to the same shape."""
        ...

    def relaxation(self) -> Relaxation:
        """What logits mean."""
        ...


@dataclass(frozen=True)
class ArchitectureStep:
    """What a sampler may learn from after a step of the weights.

    Attributes:
        supernet: whose weights are shared.
        train_loss: loss of a path on the batch that the weights learned from.
        held_out_loss: loss of a path on a batch of the half that they do not learn from.
        average: replaces the gradients of parameters by their mean over all ranks; without effect on a single one.
        seed: of the training.
        step: how many steps the weights have taken.
        progress: share of the training that is over, in [0, 1).
        learning_rate: of the weights, at this step.
    """

    supernet: Supernet
    train_loss: Callable[[Path], Tensor]
    held_out_loss: Callable[[Path], Tensor]
    average: Callable[[Iterable[nn.Parameter]], None]
    seed: int
    step: int
    progress: float
    learning_rate: float


class PathSampler(nn.Module, ABC):
    """Decides which path of a supernet a step trains.

    State that decides what is sampled later belongs into parameters, buffers or `nn.Module.get_extra_state` (of plain
    values and tensors), so that a checkpoint holds it.

    Args:
        space: what can be sampled.

    Attributes:
        steps_every: steps of the weights for each step that the sampler learns from.
        warmup: epochs at the beginning in which it learns from no step.
    """

    relaxed: bool = False
    """Whether a path runs all operations, weighted, and is the same at every step until the sampler learns."""
    chooses_in_own_order: bool = False
    """Whether it chooses without asking for scores, by probabilities of its own for instance."""
    distillation: float = 0.0
    """Of several paths of a step, how much all but the first learn from what it says in the place of the targets."""
    steps_every: int = 1
    warmup: int = 0

    def __init__(self, space: Space):
        super().__init__()
        self.space = space

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Arguments that make it cheap, besides the space, as a recipe gives them."""
        return {}

    @abstractmethod
    def path(self, seed: int, step: int, index: int = 0) -> Path:
        """The path of a step.

        A pure function of its arguments and the sampler's state: every rank draws the same path without talking.

        Args:
            seed: of the training.
            step: how many steps the weights have taken.
            index: which of several paths of the same step.
        """

    def paths(self, seed: int, step: int) -> list[Path]:
        """The paths of a step, by default one; the weights move down the mean of their losses."""
        return [self.path(seed, step)]

    def path_of(self, choices: Sequence[int]) -> Path:
        """How a given architecture runs, as a landmark or to be evaluated; by default nothing but its operations."""
        return Path(tuple(choices))

    def learn(self, step: ArchitectureStep) -> None:
        """Learn from a step; gradients that it leaves on the supernet's weights must be cleared."""

    def learns_at(self, step: int, epoch: int) -> bool:
        """Whether it learns from a step of the weights; both are counted from 0."""
        return epoch >= self.warmup and (step + 1) % self.steps_every == 0

    def penalty(self, weights: Sequence[Tensor]) -> Tensor:
        """What a path costs beside its loss, as the latency of its operations by their weights; 0 by default.

        A sampler that learns by gradient moves down it too. Decisions and whatever else an operation's price depends
        on are those of `space`.

        Args:
            weights: of the path, one tensor a decision, on the CPU.

        Returns:
            A scalar; a gradient passes through the weights.
        """
        return torch.zeros(())

    def architecture_loss(self, loss: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """What a sampler that learns by gradient moves down: by default the held-out loss and the penalty.

        FBNet's product of both, for one, is another.
        """
        return loss + self.penalty(weights).to(loss.device, non_blocking=True)

    def epoch_ended(self, evaluate: Evaluate, seed: int, epoch: int, epochs: int) -> None:
        """An epoch is over.

        Args:
            evaluate: worth of architectures with the shared weights.
            seed: of the training.
            epoch: from 0.
            epochs: how many there will be.
        """

    @abstractmethod
    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """The architectures that the method itself would return, best first, all different.

        Args:
            evaluate: worth of architectures with the shared weights.
            count: how many are wanted; fewer where the method has fewer to offer.
            seed: of whatever is drawn.
        """


def check_at_least(least: float, **numbers: float) -> None:
    """Refuse numbers, given by name, that are below what makes sense.

    Raises:
        ValueError: one is.
    """
    for name, value in numbers.items():
        if value < least:
            raise ValueError(f"{name} is {value}, it must be at least {least}")


def distinct(
    space: Space, count: int, *seed: int | str, besides: Collection[Choices] = (), tries: int = 20
) -> list[Choices]:
    """Random architectures of different networks besides some: as many as asked, or ``tries`` times the draws gave."""

    def network(choices: Choices) -> Choices:
        return tuple(space.canonical(torch.tensor(choices)).tolist())

    found: dict[Choices, Choices] = {}
    unwanted = {network(each) for each in besides}
    for draw in range(tries * count):
        if len(found) == count:
            break
        choices = space.draw(*seed, draw)
        if (key := network(choices)) not in unwanted:
            found.setdefault(key, choices)
    return list(found.values())


def best_first(worth: Mapping[Choices, float]) -> list[Choices]:
    """Architectures by their worth, highest first; one that has none (NaN) comes last."""
    return sorted(worth, key=lambda each: (math.isnan(worth[each]), -worth[each]))


def best_of(candidates: Sequence[Choices], evaluate: Evaluate) -> list[Choices]:
    """Candidates by their worth with the shared weights, best first."""
    return best_first(dict(zip(candidates, evaluate(candidates), strict=True)))
