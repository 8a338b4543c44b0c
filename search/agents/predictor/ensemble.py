"""An ensemble of multi-layer perceptrons, as BANANAS has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from search.agents.catcher.stacked import StackedMLP
from search.agents.predictor.base import Examples, Model, Predictor
from search.agents.predictor.encodings import Encoding, OneHotEncoding, PathEncoding
from search.randomness import TrialRandom


class MLPEnsemble(Predictor):
    """Several perceptrons fitted to all evaluations from different initial weights (White et al., BANANAS, AAAI 2021).

    They are fitted anew after every tenth evaluation, since BANANAS evaluates ten at a time; of what is asked in
    between the last fit decides. Loss is the mean absolute error, as there. Small networks on all examples at once are
    fitted here, which many trials can share.

    Args:
        members: networks a trial (5 there).
        layers: hidden ones (assumed; 10 there, which need batches and more steps).
        width: units of each (assumed; 20 there).
        steps: of Adam, on all examples (150 epochs there).
        learning_rate: of these (0.01 there).
        weight_decay: of these, decoupled (assumed).
        refit: evaluations between two fits (10 there).
    """

    def __init__(
        self,
        members: int = 5,
        layers: int = 3,
        width: int = 32,
        steps: int = 150,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
        refit: int = 10,
    ):
        if min(members, layers, width, refit) < 1:
            raise ValueError(
                f"MLPEnsemble: members is {members}, layers {layers}, width {width}, refit {refit}; each must be at "
                "least 1"
            )
        self.members, self.layers, self.width, self.refit = members, layers, width, refit
        self.steps, self.learning_rate, self.weight_decay = steps, learning_rate, weight_decay

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small networks, few steps."""
        return {"members": 2, "layers": 1, "width": 8, "steps": 5}

    def encodings(self) -> list[Encoding]:
        """Decisions and paths; in BANANAS paths alone, which say nothing where a drawing is a chain."""
        return [OneHotEncoding(), PathEncoding()]

    def fit(self, examples: Examples) -> Model:
        """All networks of all trials together."""
        sizes = [examples.features.shape[2], *[self.width] * self.layers, 1]
        networks = [StackedMLP(TrialRandom(seed, self.members), sizes, torch.float32) for seed in examples.seeds]
        adam = AdamSteps(self.steps, self.learning_rate, self.weight_decay)
        return fit_side_by_side(networks, self.members, examples, Tensor.abs, adam)


@dataclass(frozen=True)
class AdamSteps:
    """Steps of Adam with decoupled weight decay, each on all examples."""

    steps: int
    learning_rate: float
    weight_decay: float


def fit_side_by_side(
    networks: list[Any], members: int, examples: Examples, error: Callable[[Tensor], Tensor], adam: AdamSteps
) -> Ensemble:
    """Fit the networks of all trials together.

    Args:
        networks: of each trial, its members side by side; they become one module.
        members: a trial.
        examples: of all trials.
        error: of differences, element by element; its mean is the loss.
        adam: how.
    """
    together = stacked(networks)
    features = examples.features.repeat_interleave(members, 0)
    targets = examples.targets.float().repeat_interleave(members, 0)
    optimizer = torch.optim.AdamW(together.parameters(), lr=adam.learning_rate, weight_decay=adam.weight_decay)
    with torch.enable_grad():
        for _ in range(adam.steps):
            optimizer.zero_grad()
            error(together(features).squeeze(2) - targets).mean(1).sum().backward()
            optimizer.step()
    return Ensemble(together, members)


class Ensemble(Model):
    """Networks side by side: their mean, and the standard deviation among them.

    Args:
        networks: from float32 ``[trials * members, m, columns]`` to ``[trials * members, m, 1]``.
        members: a trial.
    """

    def __init__(self, networks: nn.Module, members: int):
        self.networks, self._members = networks, members

    @torch.no_grad()
    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the members."""
        found = []
        parameters = dict(self.networks.named_parameters())
        for trial in range(len(next(iter(parameters.values()))) // self._members):  # all at once would take gigabytes
            own = slice(trial * self._members, (trial + 1) * self._members)
            asked = features[trial % len(features)].expand(self._members, -1, -1)
            mine = {name: parameter[own] for name, parameter in parameters.items()}
            found.append(functional_call(self.networks, mine, (asked,)).squeeze(2).double())
        every = torch.stack(found)
        return every.mean(1), every.std(1, correction=0)


def stacked(networks: list[Any]) -> nn.Module:
    """One module whose parameters are those of several, one behind the other along the first dimension."""
    first, *others = networks
    parameters = [dict(each.named_parameters()) for each in others]
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            parameter.data = torch.cat([parameter.data, *(each[name].data for each in parameters)])
    return first
